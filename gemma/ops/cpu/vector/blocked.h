#pragma once

// The products of many rows, as the including file is compiled: PackedRows with weights, and the
// queries of a block with keys and values.
#ifdef __AMX_BF16__
#include <gemma/ops/cpu/amx/attention_products.h>
#include <gemma/ops/cpu/amx/gemm.h>
#else
#include <gemma/ops/cpu/vector/attention_products.h>
#include <gemma/ops/cpu/vector/gemm.h>
#endif
