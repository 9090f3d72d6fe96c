#pragma once

// The products of many rows, as the including file is compiled: PackedRows with weights, and the
// queries of a tile with keys and values.
#ifdef __AMX_BF16__
#include <gemma/ops/cpu/amx_many_rows.h>
#include <gemma/ops/cpu/amx_tile_products.h>
#else
#include <gemma/ops/cpu/many_rows.h>
#include <gemma/ops/cpu/tile_products.h>
#endif
