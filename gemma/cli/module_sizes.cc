#include <fmt/format.h>

#include <gemma/cli/module_sizes.h>
#include <gemma/cli/output.h>
#include <gemma/models/summary.h>

namespace gemma::cli {

Size size_of(const torch::nn::Module& module) {
  Size size;
  for (const auto& parameter : module.parameters()) {
    size.count += parameter.numel();
    size.bytes += static_cast<int64_t>(parameter.nbytes());
  }
  return size;
}

void print_size_header() {
  show("\nParameters\n  {:<44} {:>16} {:>18}\n", "module", "count", "bytes");
}

void print_size(const std::string& name, const Size& size) {
  show("  {:<44} {:>16} {:>18}\n", name, grouped(size.count), grouped(size.bytes));
}

}  // namespace gemma::cli
