#include "recurrentgemma.h"

#include <gemma/modules/recurrentgemma/embedder.h>
#include <gemma/modules/recurrentgemma/residual_block.h>
#include <gemma/ops/rnn_scan.h>

namespace gemma::bindings {
namespace {

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
  ModuleClass<rg::RMSNormImpl>(part, "RMSNorm", "layers.py: RMSNorm.")
      .def(py::init([](int64_t width, double eps, const py::object& device, MaybeDtype dtype) {
             return constructed<rg::RMSNormImpl>(device, dtype, width, eps);
           }),
           py::arg("width"), py::arg("eps") = 1e-6, py::kw_only(), py::arg("device") = py::none(),
           py::arg("dtype") = py::none())
      .def("forward", &rg::RMSNormImpl::forward, py::arg("x"), ReleaseGil())
      .def_property_readonly("width", &rg::RMSNormImpl::width)
      .def_property_readonly("eps", &rg::RMSNormImpl::eps);
  ModuleClass<rg::BlockDiagonalLinearImpl>(part, "BlockDiagonalLinear",
                                           "layers.py: BlockDiagonalLinear.")
      .def(py::init(
               [](int64_t width, int64_t num_blocks, const py::object& device, MaybeDtype dtype) {
                 return constructed<rg::BlockDiagonalLinearImpl>(device, dtype, width, num_blocks);
               }),
           py::arg("width"), py::arg("num_blocks"), py::kw_only(), py::arg("device") = py::none(),
           py::arg("dtype") = py::none())
      .def("forward", &rg::BlockDiagonalLinearImpl::forward, py::arg("x"), ReleaseGil())
      .def_property_readonly("width", &rg::BlockDiagonalLinearImpl::width)
      .def_property_readonly("num_blocks", &rg::BlockDiagonalLinearImpl::num_blocks)
      .def_property_readonly("block_width", &rg::BlockDiagonalLinearImpl::block_width);
  ModuleClass<rg::EinsumImpl>(part, "Einsum", "layers.py: Einsum.")
      .def(py::init([](const std::vector<int64_t>& w_shape, const std::vector<int64_t>& b_shape,
                       const std::string& eqn, const py::object& device, MaybeDtype dtype) {
             return constructed<rg::EinsumImpl>(device, dtype, w_shape, b_shape, eqn);
           }),
           py::arg("w_shape"), py::arg("b_shape"), py::arg("eqn"), py::kw_only(),
           py::arg("device") = py::none(), py::arg("dtype") = py::none())
      .def("forward", &rg::EinsumImpl::forward, py::arg("x"), ReleaseGil())
      .def_property_readonly("eqn", &rg::EinsumImpl::eqn);
  ModuleClass<rg::MLPBlockImpl>(part, "MLPBlock", "modules.py: MLPBlock.")
      .def(py::init([](int64_t width, int64_t expanded_width, const py::object& device,
                       MaybeDtype dtype) {
             return constructed<rg::MLPBlockImpl>(device, dtype, width, expanded_width);
           }),
           py::arg("width"), py::arg("expanded_width"), py::kw_only(),
           py::arg("device") = py::none(), py::arg("dtype") = py::none())
      .def(
          "forward", [](rg::MLPBlockImpl& self, const at::Tensor& x) { return self.forward(x); },
          py::arg("x"), ReleaseGil())
      .def_property_readonly("width", &rg::MLPBlockImpl::width)
      .def_property_readonly("expanded_width", &rg::MLPBlockImpl::expanded_width);
  ModuleClass<rg::EmbedderImpl>(part, "Embedder", "modules.py: Embedder.")
      .def(py::init([](int64_t vocab_size, int64_t embed_dim, bool scale_by_sqrt_dim,
                       const py::object& device, MaybeDtype dtype) {
             return constructed<rg::EmbedderImpl>(device, dtype, vocab_size, embed_dim,
                                                  scale_by_sqrt_dim);
           }),
           py::arg("vocab_size"), py::arg("embed_dim"), py::arg("scale_by_sqrt_dim"), py::kw_only(),
           py::arg("device") = py::none(), py::arg("dtype") = py::none())
      .def("encode", &rg::EmbedderImpl::encode, py::arg("x"), ReleaseGil())
      .def("decode", &rg::EmbedderImpl::decode, py::arg("x"), ReleaseGil())
      .def_property_readonly("vocab_size", &rg::EmbedderImpl::vocab_size)
      .def_property_readonly("embed_dim", &rg::EmbedderImpl::embed_dim)
      .def_property_readonly("scale_by_sqrt_dim", &rg::EmbedderImpl::scale_by_sqrt_dim);
}

void bind_recurrence(py::module_& part) {
  part.def("rnn_scan", &rg::rnn_scan, py::arg("x"), py::arg("a"), py::arg("reset"), py::arg("h0"),
           py::arg("acc_dtype") = torch::kFloat32, ReleaseGil(), "layers.py: rnn_scan.");
  auto rg_lru = ModuleClass<rg::RGLRUImpl>(part, "RGLRU", "layers.py: RGLRU.");
  rg_lru.def(
      py::init([](int64_t width, int64_t num_heads, const py::object& device, MaybeDtype dtype) {
        return constructed<rg::RGLRUImpl>(device, dtype, width, num_heads);
      }),
      py::arg("width"), py::arg("num_heads"), py::kw_only(), py::arg("device") = py::none(),
      py::arg("dtype") = py::none());
  def_forward(rg_lru)
      .def_static(
          "init_cache",
          [](int64_t batch_size, int64_t width, const py::object& device) {
            return rg::RGLRUImpl::init_cache(batch_size, width, device_or_cpu(device));
          },
          py::arg("batch_size"), py::arg("width"), py::arg("device") = py::none())
      .def_property_readonly("width", &rg::RGLRUImpl::width)
      .def_property_readonly("num_heads", &rg::RGLRUImpl::num_heads);
  auto conv = ModuleClass<rg::Conv1DImpl>(part, "Conv1D", "layers.py: Conv1D.");
  conv.def(py::init([](int64_t width, int64_t temporal_width, const py::object& device,
                       MaybeDtype dtype) {
             return constructed<rg::Conv1DImpl>(device, dtype, width, temporal_width);
           }),
           py::arg("width"), py::arg("temporal_width"), py::kw_only(),
           py::arg("device") = py::none(), py::arg("dtype") = py::none());
  def_forward(conv)
      .def_static(
          "init_cache",
          [](int64_t batch_size, int64_t width, torch::Dtype dtype, int64_t conv1d_temporal_width,
             const py::object& device) {
            return rg::Conv1DImpl::init_cache(batch_size, width, dtype, conv1d_temporal_width,
                                              device_or_cpu(device));
          },
          py::kw_only(), py::arg("batch_size"), py::arg("width"), py::arg("dtype"),
          py::arg("conv1d_temporal_width") = 4, py::arg("device") = py::none())
      .def_property_readonly("width", &rg::Conv1DImpl::width)
      .def_property_readonly("temporal_width", &rg::Conv1DImpl::temporal_width);
}

void bind_temporal_blocks(py::module_& part) {
  auto recurrent =
      ModuleClass<rg::RecurrentBlockImpl>(part, "RecurrentBlock", "modules.py: RecurrentBlock.");
  recurrent.def(
      py::init([](int64_t width, int64_t num_heads, MaybeSize lru_width,
                  int64_t conv1d_temporal_width, const py::object& device, MaybeDtype dtype) {
        return constructed<rg::RecurrentBlockImpl>(device, dtype, width, num_heads, lru_width,
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
            return rg::RecurrentBlockImpl::init_cache(batch_size, lru_width, dtype,
                                                      conv1d_temporal_width, device_or_cpu(device));
          },
          py::arg("batch_size"), py::arg("lru_width"), py::arg("dtype"),
          py::arg("conv1d_temporal_width") = 4, py::arg("device") = py::none())
      .def_property_readonly("width", &rg::RecurrentBlockImpl::width)
      .def_property_readonly("num_heads", &rg::RecurrentBlockImpl::num_heads)
      .def_property_readonly("lru_width", &rg::RecurrentBlockImpl::lru_width)
      .def_property_readonly("conv1d_temporal_width",
                             &rg::RecurrentBlockImpl::conv1d_temporal_width);
  auto attention = ModuleClass<rg::LocalAttentionBlockImpl>(part, "LocalAttentionBlock",
                                                            "modules.py: LocalAttentionBlock.");
  attention.def(py::init([](int64_t width, int64_t num_heads, int64_t window_size,
                            const py::object& device, MaybeDtype dtype) {
                  return constructed<rg::LocalAttentionBlockImpl>(device, dtype, width, num_heads,
                                                                  window_size);
                }),
                py::arg("width"), py::arg("num_heads"), py::arg("window_size"), py::kw_only(),
                py::arg("device") = py::none(), py::arg("dtype") = py::none());
  def_forward(attention)
      .def_static(
          "init_cache",
          [](int64_t batch_size, int64_t window_size, int64_t heads_dim, torch::Dtype dtype,
             const py::object& device) {
            return rg::LocalAttentionBlockImpl::init_cache(batch_size, window_size, heads_dim,
                                                           dtype, device_or_cpu(device));
          },
          py::arg("batch_size"), py::arg("window_size"), py::arg("heads_dim"), py::arg("dtype"),
          py::arg("device") = py::none())
      .def_property_readonly("width", &rg::LocalAttentionBlockImpl::width)
      .def_property_readonly("num_heads", &rg::LocalAttentionBlockImpl::num_heads)
      .def_property_readonly("head_dim", &rg::LocalAttentionBlockImpl::head_dim)
      .def_property_readonly("window_size", &rg::LocalAttentionBlockImpl::window_size);
}

void bind_residual_block(py::module_& part) {
  auto block =
      ModuleClass<rg::ResidualBlockImpl>(part, "ResidualBlock", "modules.py: ResidualBlock.");
  block.def(py::init([](int64_t width, int64_t mlp_expanded_width, int64_t num_heads,
                        int64_t attention_window_size, rg::TemporalBlockType temporal_block_type,
                        MaybeSize lru_width, int64_t conv1d_temporal_width,
                        const py::object& device, MaybeDtype dtype) {
              return constructed<rg::ResidualBlockImpl>(
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
             rg::TemporalBlockType temporal_block_type, torch::Dtype dtype, MaybeSize lru_width,
             int64_t conv1d_temporal_width, const py::object& device) {
            return rg::ResidualBlockImpl::init_cache(
                batch_size, width, num_heads, attention_window_size, temporal_block_type, dtype,
                lru_width, conv1d_temporal_width, device_or_cpu(device));
          },
          py::arg("batch_size"), py::arg("width"), py::arg("num_heads"),
          py::arg("attention_window_size"), py::arg("temporal_block_type"), py::arg("dtype"),
          py::arg("lru_width") = py::none(), py::arg("conv1d_temporal_width") = 4,
          py::arg("device") = py::none())
      .def_property_readonly("temporal_block_type", &rg::ResidualBlockImpl::temporal_block_type);
}

}  // namespace

void bind_griffin_layers(py::module_& part) {
  const auto recurrent =
      make_named_tuple<rg::RecurrentBlockCache>(part, "modules.py: RecurrentBlockCache.");
  const auto attention =
      make_named_tuple<rg::AttentionBlockCache>(part, "modules.py: AttentionBlockCache.");
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
