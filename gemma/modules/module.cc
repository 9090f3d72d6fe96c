#include <functional>
#include <new>
#include <stdexcept>

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/DefaultDtype.h>
#include <c10/util/safe_numerics.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <torch/nn/modules/container/modulelist.h>

#include <gemma/modules/module.h>
#include <gemma/ops/ops.h>

namespace gemma {
namespace {

std::string node_name(const torch::nn::Module& module) {
  if (const auto* ours = dynamic_cast<const Module*>(&module)) return ours->signature();
  return "ModuleList()";
}

std::string indented(const std::string& text) {
  std::string out;
  for (const char c : text) {
    out += c;
    if (c == '\n') out += "  ";
  }
  return out;
}

// Consecutive children that print alike, folded as torch.nn.ModuleList folds them.
std::string children_text(const torch::nn::Module& module) {
  struct Run {
    std::string first, last, text;
    int count;
  };
  std::vector<Run> runs;
  const bool is_list = dynamic_cast<const torch::nn::ModuleListImpl*>(&module) != nullptr;
  for (const auto& child : module.named_children()) {
    auto text = to_string(*child.value());
    if (is_list && !runs.empty() && runs.back().text == text) {
      runs.back().last = child.key();
      ++runs.back().count;
    } else {
      runs.push_back({child.key(), child.key(), std::move(text), 1});
    }
  }
  std::string out;
  for (const auto& run : runs) {
    const auto name = run.count == 1 ? run.first : fmt::format("{}-{}", run.first, run.last);
    const auto times = run.count == 1 ? "" : fmt::format("{} x ", run.count);
    out += fmt::format("\n  ({}): {}{}", name, times, indented(run.text));
  }
  return out;
}

}  // namespace

Module::Module() : ops_(&ops_for(Numerics::kExact, at::kCPU)) {}

Numerics Module::numerics() const { return ops_->numerics(); }

std::vector<Module*> Module::all_ours() {
  std::vector<Module*> found{this};
  for (const auto& child : modules(/*include_self=*/false)) {
    if (auto* ours = dynamic_cast<Module*>(child.get())) found.push_back(ours);
  }
  return found;
}

void Module::share_use_lock() {
  for (auto* module : all_ours()) {
    module->use_lock_ = use_lock_;
    module->passes_ = passes_;
  }
}

void Module::set_ops(const Ops& ops) {
  const auto ours = all_ours();
  for (const auto* module : ours) module->check_taps(ops.numerics());
  for (auto* module : ours) module->ops_ = &ops;
  arrange_weights();
}

void Module::arrange_weights() {
  const torch::NoGradGuard no_grad;
  for (auto* module : all_ours()) module->arrange_own_weights();
}

void Module::set_numerics(Numerics numerics) {
  const UseLock::Change change(use_lock(), "set_numerics");
  const auto weights = parameters();
  set_ops(ops_for(numerics, weights.empty() ? at::kCPU : weights.front().device()));
}

void Module::to(torch::Device device, bool non_blocking) {
  if (device.is_meta()) {
    throw std::invalid_argument(
        "to: device is meta, which would discard the weights; move to cpu or cuda");
  }
  const UseLock::Change change(use_lock(), "to");
  const Ops& ops = ops_for(numerics(), device);
  torch::nn::Module::to(device, non_blocking);
  set_ops(ops);
}

void Module::to(torch::Dtype dtype, bool non_blocking) {
  const UseLock::Change change(use_lock(), "to");
  for (auto& parameter : parameters()) {
    if (parameter.is_floating_point()) parameter.set_data(parameter.to(dtype, non_blocking));
  }
}

void Module::to(torch::Device device, torch::Dtype dtype, bool non_blocking) {
  const UseLock::Change change(use_lock(), "to");
  to(dtype, non_blocking);
  to(device, non_blocking);
}

std::string to_string(const torch::nn::Module& module) {
  auto name = node_name(module);
  const auto children = children_text(module);
  if (children.empty()) return name;
  name.pop_back();  // The closing parenthesis goes below the children.
  return name + children + "\n)";
}

int64_t check_size(std::string_view module, std::string_view name, int64_t size) {
  if (size >= 0) return size;
  throw std::invalid_argument(
      fmt::format("{}: {} is {}, but a size is 0 or more", module, name, size));
}

torch::Tensor uninitialized(torch::IntArrayRef sizes, torch::Dtype dtype) {
  uint64_t count = 0;
  uint64_t bytes = 0;
  if (c10::safe_multiplies_u64(sizes, &count) ||
      c10::mul_overflows(count, uint64_t{c10::elementSize(dtype)}, &bytes)) {
    throw std::bad_alloc();
  }
  if (bytes == 0) return at::empty(sizes, dtype);
  void* const memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  // Where huge pages are opt-in, a matrix-vector product over 4 KiB pages waits for the TLB.
  ::madvise(memory, bytes, MADV_HUGEPAGE);
  return at::from_blob(
      memory, sizes, [bytes](void* p) { ::munmap(p, bytes); }, at::TensorOptions().dtype(dtype));
}

torch::Dtype default_dtype() { return c10::get_default_dtype_as_scalartype(); }

DefaultDtypeGuard::DefaultDtypeGuard(torch::Dtype dtype) : previous_(default_dtype()) {
  c10::set_default_dtype(c10::scalarTypeToTypeMeta(dtype));
}

DefaultDtypeGuard::~DefaultDtypeGuard() {
  c10::set_default_dtype(c10::scalarTypeToTypeMeta(previous_));
}

}  // namespace gemma
