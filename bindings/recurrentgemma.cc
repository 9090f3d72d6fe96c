#include "recurrentgemma.h"

#include <gemma/modules/recurrentgemma/embedder.h>
#include <gemma/modules/recurrentgemma/residual_block.h>
#include <gemma/ops/rnn_scan.h>

namespace gemma::bindings {
namespace {

using namespace recurrentgemma;

using MaybeDtype = std::optional<torch::Dtype>;
using MaybeSize = std::optional<int64_t>;

constexpr const char* kForward =
    "x [B, T, width], segment_pos [B, T] -> ([B, T, width], the next cache)";

// What forward takes, in all layers that keep something.
template <typename Class>
Class& def_forward(Class& layer) {
  using Impl = typename Class::type;
  return layer.def("forward", &Impl::forward, py::arg("x"), py::arg("segment_pos"),
                   py::arg("cache") = py::none(), py::arg("return_cache") = true, ReleaseGil(),
                   kForward);
}

void bind_simple_layers(py::module_& part) {
  ModuleClass<recurrentgemma::RMSNormImpl>(part, "RMSNorm", "layers.py: RMSNorm.")
      .def(py::init([](int64_t width, double eps, const py::object& device, MaybeDtype dtype) {
             return constructed<recurrentgemma::RMSNormImpl>(device, dtype, width, eps);
           }),
           py::arg("width"), py::arg("eps") = 1e-6, py::kw_only(), py::arg("device") = py::none(),
           py::arg("dtype") = py::none())
      .def("forward", &recurrentgemma::RMSNormImpl::forward, py::arg("x"), ReleaseGil())
      .def_property_readonly("width", &recurrentgemma::RMSNormImpl::width)
      .def_property_readonly("eps", &recurrentgemma::RMSNormImpl::eps);
  ModuleClass<BlockDiagonalLinearImpl>(part, "BlockDiagonalLinear",
                                       "layers.py: BlockDiagonalLinear.")
      .def(py::init(
               [](int64_t width, int64_t num_blocks, const py::object& device, MaybeDtype dtype) {
                 return constructed<BlockDiagonalLinearImpl>(device, dtype, width, num_blocks);
               }),
           py::arg("width"), py::arg("num_blocks"), py::kw_only(), py::arg("device") = py::none(),
           py::arg("dtype") = py::none())
      .def("forward", &BlockDiagonalLinearImpl::forward, py::arg("x"), ReleaseGil())
      .def_property_readonly("width", &BlockDiagonalLinearImpl::width)
      .def_property_readonly("num_blocks", &BlockDiagonalLinearImpl::num_blocks)
      .def_property_readonly("block_width", &BlockDiagonalLinearImpl::block_width);
  ModuleClass<EinsumImpl>(part, "Einsum", "layers.py: Einsum.")
      .def(py::init([](const std::vector<int64_t>& w_shape, const std::vector<int64_t>& b_shape,
                       const std::string& eqn, const py::object& device, MaybeDtype dtype) {
             return constructed<EinsumImpl>(device, dtype, w_shape, b_shape, eqn);
           }),
           py::arg("w_shape"), py::arg("b_shape"), py::arg("eqn"), py::kw_only(),
           py::arg("device") = py::none(), py::arg("dtype") = py::none())
      .def("forward", &EinsumImpl::forward, py::arg("x"), ReleaseGil())
      .def_property_readonly("eqn", &EinsumImpl::eqn);
  ModuleClass<MLPBlockImpl>(part, "MLPBlock", "modules.py: MLPBlock.")
      .def(py::init([](int64_t width, int64_t expanded_width, const py::object& device,
                       MaybeDtype dtype) {
             return constructed<MLPBlockImpl>(device, dtype, width, expanded_width);
           }),
           py::arg("width"), py::arg("expanded_width"), py::kw_only(),
           py::arg("device") = py::none(), py::arg("dtype") = py::none())
      .def("forward", &MLPBlockImpl::forward, py::arg("x"), ReleaseGil())
      .def_property_readonly("width", &MLPBlockImpl::width)
      .def_property_readonly("expanded_width", &MLPBlockImpl::expanded_width);
  ModuleClass<EmbedderImpl>(part, "Embedder", "modules.py: Embedder.")
      .def(py::init([](int64_t vocab_size, int64_t embed_dim, bool scale_by_sqrt_dim,
                       const py::object& device, MaybeDtype dtype) {
             return constructed<EmbedderImpl>(device, dtype, vocab_size, embed_dim,
                                              scale_by_sqrt_dim);
           }),
           py::arg("vocab_size"), py::arg("embed_dim"), py::arg("scale_by_sqrt_dim"), py::kw_only(),
           py::arg("device") = py::none(), py::arg("dtype") = py::none())
      .def("encode", &EmbedderImpl::encode, py::arg("x"), ReleaseGil())
      .def("decode", &EmbedderImpl::decode, py::arg("x"), ReleaseGil())
      .def_property_readonly("vocab_size", &EmbedderImpl::vocab_size)
      .def_property_readonly("embed_dim", &EmbedderImpl::embed_dim)
      .def_property_readonly("scale_by_sqrt_dim", &EmbedderImpl::scale_by_sqrt_dim);
}

void bind_recurrence(py::module_& part) {
  part.def("rnn_scan", &rnn_scan, py::arg("x"), py::arg("a"), py::arg("reset"), py::arg("h0"),
           py::arg("acc_dtype") = torch::kFloat32, ReleaseGil(), "layers.py: rnn_scan.");
  auto rg_lru = ModuleClass<RGLRUImpl>(part, "RGLRU", "layers.py: RGLRU.");
  rg_lru.def(
      py::init([](int64_t width, int64_t num_heads, const py::object& device, MaybeDtype dtype) {
        return constructed<RGLRUImpl>(device, dtype, width, num_heads);
      }),
      py::arg("width"), py::arg("num_heads"), py::kw_only(), py::arg("device") = py::none(),
      py::arg("dtype") = py::none());
  def_forward(rg_lru)
      .def_static(
          "init_cache",
          [](int64_t batch_size, int64_t width, const py::object& device) {
            return RGLRUImpl::init_cache(batch_size, width, device_or_cpu(device));
          },
          py::arg("batch_size"), py::arg("width"), py::arg("device") = py::none())
      .def_property_readonly("width", &RGLRUImpl::width)
      .def_property_readonly("num_heads", &RGLRUImpl::num_heads);
  auto conv = ModuleClass<Conv1DImpl>(part, "Conv1D", "layers.py: Conv1D.");
  conv.def(py::init([](int64_t width, int64_t temporal_width, const py::object& device,
                       MaybeDtype dtype) {
             return constructed<Conv1DImpl>(device, dtype, width, temporal_width);
           }),
           py::arg("width"), py::arg("temporal_width"), py::kw_only(),
           py::arg("device") = py::none(), py::arg("dtype") = py::none());
  def_forward(conv)
      .def_static(
          "init_cache",
          [](int64_t batch_size, int64_t width, torch::Dtype dtype, int64_t conv1d_temporal_width,
             const py::object& device) {
            return Conv1DImpl::init_cache(batch_size, width, dtype, conv1d_temporal_width,
                                          device_or_cpu(device));
          },
          py::kw_only(), py::arg("batch_size"), py::arg("width"), py::arg("dtype"),
          py::arg("conv1d_temporal_width") = 4, py::arg("device") = py::none())
      .def_property_readonly("width", &Conv1DImpl::width)
      .def_property_readonly("temporal_width", &Conv1DImpl::temporal_width);
}

void bind_temporal_blocks(py::module_& part) {
  auto recurrent =
      ModuleClass<RecurrentBlockImpl>(part, "RecurrentBlock", "modules.py: RecurrentBlock.");
  recurrent.def(
      py::init([](int64_t width, int64_t num_heads, MaybeSize lru_width,
                  int64_t conv1d_temporal_width, const py::object& device, MaybeDtype dtype) {
        return constructed<RecurrentBlockImpl>(device, dtype, width, num_heads, lru_width,
                                               conv1d_temporal_width);
      }),
      py::arg("width"), py::arg("num_heads"), py::arg("lru_width") = py::none(),
      py::arg("conv1d_temporal_width") = 4, py::kw_only(), py::arg("device") = py::none(),
      py::arg("dtype") = py::none());
  def_forward(recurrent)
      .def_static(
          "init_cache",
          [](int64_t batch_size, int64_t lru_width, torch::Dtype dtype,
             int64_t conv1d_temporal_width, const py::object& device) {
            return RecurrentBlockImpl::init_cache(batch_size, lru_width, dtype,
                                                  conv1d_temporal_width, device_or_cpu(device));
          },
          py::arg("batch_size"), py::arg("lru_width"), py::arg("dtype"),
          py::arg("conv1d_temporal_width") = 4, py::arg("device") = py::none())
      .def_property_readonly("width", &RecurrentBlockImpl::width)
      .def_property_readonly("num_heads", &RecurrentBlockImpl::num_heads)
      .def_property_readonly("lru_width", &RecurrentBlockImpl::lru_width)
      .def_property_readonly("conv1d_temporal_width", &RecurrentBlockImpl::conv1d_temporal_width);
  auto attention = ModuleClass<LocalAttentionBlockImpl>(part, "LocalAttentionBlock",
                                                        "modules.py: LocalAttentionBlock.");
  attention.def(py::init([](int64_t width, int64_t num_heads, int64_t window_size,
                            const py::object& device, MaybeDtype dtype) {
                  return constructed<LocalAttentionBlockImpl>(device, dtype, width, num_heads,
                                                              window_size);
                }),
                py::arg("width"), py::arg("num_heads"), py::arg("window_size"), py::kw_only(),
                py::arg("device") = py::none(), py::arg("dtype") = py::none());
  def_forward(attention)
      .def_static(
          "init_cache",
          [](int64_t batch_size, int64_t window_size, int64_t heads_dim, torch::Dtype dtype,
             const py::object& device) {
            return LocalAttentionBlockImpl::init_cache(batch_size, window_size, heads_dim, dtype,
                                                       device_or_cpu(device));
          },
          py::arg("batch_size"), py::arg("window_size"), py::arg("heads_dim"), py::arg("dtype"),
          py::arg("device") = py::none())
      .def_property_readonly("width", &LocalAttentionBlockImpl::width)
      .def_property_readonly("num_heads", &LocalAttentionBlockImpl::num_heads)
      .def_property_readonly("head_dim", &LocalAttentionBlockImpl::head_dim)
      .def_property_readonly("window_size", &LocalAttentionBlockImpl::window_size);
}

void bind_residual_block(py::module_& part) {
  auto block = ModuleClass<ResidualBlockImpl>(part, "ResidualBlock", "modules.py: ResidualBlock.");
  block.def(py::init([](int64_t width, int64_t mlp_expanded_width, int64_t num_heads,
                        int64_t attention_window_size, TemporalBlockType temporal_block_type,
                        MaybeSize lru_width, int64_t conv1d_temporal_width,
                        const py::object& device, MaybeDtype dtype) {
              return constructed<ResidualBlockImpl>(
                  device, dtype, width, mlp_expanded_width, num_heads, attention_window_size,
                  temporal_block_type, lru_width, conv1d_temporal_width);
            }),
            py::arg("width"), py::arg("mlp_expanded_width"), py::arg("num_heads"),
            py::arg("attention_window_size"), py::arg("temporal_block_type"),
            py::arg("lru_width") = py::none(), py::arg("conv1d_temporal_width") = 4, py::kw_only(),
            py::arg("device") = py::none(), py::arg("dtype") = py::none());
  def_forward(block)
      .def_static(
          "init_cache",
          [](int64_t batch_size, int64_t width, int64_t num_heads, int64_t attention_window_size,
             TemporalBlockType temporal_block_type, torch::Dtype dtype, MaybeSize lru_width,
             int64_t conv1d_temporal_width, const py::object& device) {
            return ResidualBlockImpl::init_cache(
                batch_size, width, num_heads, attention_window_size, temporal_block_type, dtype,
                lru_width, conv1d_temporal_width, device_or_cpu(device));
          },
          py::arg("batch_size"), py::arg("width"), py::arg("num_heads"),
          py::arg("attention_window_size"), py::arg("temporal_block_type"), py::arg("dtype"),
          py::arg("lru_width") = py::none(), py::arg("conv1d_temporal_width") = 4,
          py::arg("device") = py::none())
      .def_property_readonly("temporal_block_type", &ResidualBlockImpl::temporal_block_type);
}

}  // namespace

void bind_griffin_layers(py::module_& part) {
  const auto recurrent =
      make_named_tuple<RecurrentBlockCache>(part, "modules.py: RecurrentBlockCache.");
  const auto attention =
      make_named_tuple<AttentionBlockCache>(part, "modules.py: AttentionBlockCache.");
  part.attr("ResidualBlockCache") = recurrent | attention;
  bind_simple_layers(part);
  bind_recurrence(part);
  bind_temporal_blocks(part);
  bind_residual_block(part);
}

void bind_recurrentgemma(py::module_& m) {
  auto part = m.def_submodule("_recurrentgemma");
  bind_griffin_config(part);
  bind_griffin_layers(part);
  bind_griffin(part);
}

}  // namespace gemma::bindings
