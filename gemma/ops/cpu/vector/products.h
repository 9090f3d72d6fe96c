#pragma once

// The products of many rows, as the including file is compiled: PackedRows with weights, and the
// queries of a tile with keys and values.
#ifdef __AMX_BF16__
#include <gemma/ops/cpu/amx/many_rows.h>
#include <gemma/ops/cpu/amx/tile_products.h>
#else
#include <gemma/ops/cpu/vector/many_rows.h>
#include <gemma/ops/cpu/vector/tile_products.h>
#endif
