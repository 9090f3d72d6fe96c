#include <chrono>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>

#include <fmt/format.h>

#include <gemma/checkpoint/checkpoint.h>
#include <gemma/checkpoint/mapped_file.h>
#include <gemma/checkpoint/output_file.h>
#include <gemma/checkpoint/torch_writer.h>
#include <gemma/cli/convert.h>
#include <gemma/cli/progress.h>
#include <gemma/config.h>
#include <gemma/models/convert.h>

namespace gemma::cli {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

struct ConvertArguments {
  std::string in;
  std::string out;
  std::string quant;  // Empty: leave weights as they are.
  std::string dtype;  // Empty: the file's.
  bool force = false;
};

struct Written {
  int64_t tensors = 0, quantized = 0;
};

[[noreturn]] void refuse(const fs::path& path, std::string_view what) {
  throw std::invalid_argument(fmt::format("convert: {}: {}", path.string(), what));
}

ConvertOptions parse(const ConvertArguments& arguments) {
  ConvertOptions options;
  if (!arguments.quant.empty()) options.quant = quant_from_string(arguments.quant);
  if (!arguments.dtype.empty()) options.dtype = dtype_from_string(arguments.dtype);
  return options;
}

fs::path folder_of(const fs::path& file) {
  return file.has_parent_path() ? file.parent_path() : fs::path(".");
}

// The file could be replaced while it is read, but a typing error must not cost the original.
void check_out(const Checkpoint& checkpoint, const fs::path& out) {
  if (out.extension() != ".ckpt") refuse(out, "end the output's name in .ckpt");
  for (const auto& entry : checkpoint.entries()) {
    std::error_code absent;
    if (fs::equivalent(checkpoint.file_of(entry.name), out, absent)) {
      refuse(out, "is the input; give the output another name");
    }
  }
}

void check_space(const fs::path& out, int64_t bytes) {
  std::error_code unknown;
  const auto space = fs::space(folder_of(out), unknown);
  if (unknown || space.available >= static_cast<uint64_t>(bytes)) return;
  refuse(out,
         fmt::format("takes {:.0f} MB, but its disk has room for {:.0f} MB; make room, or "
                     "choose another disk",
                     static_cast<double>(bytes) / 1e6, static_cast<double>(space.available) / 1e6));
}

// Official downloads have the tokenizer beside the weights, where gemma run looks for it.
void copy_tokenizer(const fs::path& in, const fs::path& out) {
  constexpr auto kName = "tokenizer.model";
  const auto from = (fs::is_directory(in) ? in : folder_of(in)) / kName;
  const auto to = folder_of(out) / kName;
  if (!fs::exists(from) || fs::exists(to)) return;
  const MappedFile source(from);
  OutputFile target(to);
  target.write(source.bytes());
  target.commit();
  fmt::print(stderr, "copied {}\n", to.string());
}

void print_read(const Checkpoint& checkpoint) {
  int64_t bytes = 0;
  for (const auto& entry : checkpoint.entries()) bytes += static_cast<int64_t>(entry.nbytes);
  const auto detected = detect_variant(checkpoint);
  fmt::print(stderr, "read {}: {}, {} tensors, {:.1f} MB\n", checkpoint.path(),
             detected ? "variant " + detected->variant : "no known variant",
             checkpoint.entries().size(), static_cast<double>(bytes) / 1e6);
}

void convert(const ConvertArguments& arguments) {
  const auto start = Clock::now();
  const auto options = parse(arguments);
  const auto checkpoint = Checkpoint::open(arguments.in);
  const fs::path out = arguments.out;
  check_out(checkpoint, out);
  check_space(out, converted_bytes(checkpoint, options));

  TorchWriter writer(out, arguments.force);
  print_read(checkpoint);
  ProgressBar bar("Converting");
  Written written;
  convert_weights(
      checkpoint, options,
      [&](const std::string& name, const torch::Tensor& tensor) {
        writer.add(name, tensor);
        ++written.tensors;
        const auto dtype = tensor.scalar_type();
        if (dtype == torch::kChar || dtype == torch::kByte) ++written.quantized;
      },
      std::ref(bar));
  writer.finish();
  fmt::print(stderr, "wrote {}: {} tensors, {} of them quantised, {:.1f} MB, in {:.1f} s\n",
             out.string(), written.tensors, written.quantized,
             static_cast<double>(writer.size()) / 1e6,
             std::chrono::duration<double>(Clock::now() - start).count());
  copy_tokenizer(arguments.in, out);
}

}  // namespace

void add_convert(CLI::App& app) {
  const auto arguments = std::make_shared<ConvertArguments>();
  auto* command = app.add_subcommand(
      "convert", "Write a checkpoint anew: as one file, with int8 weights, in another dtype.");
  command->add_option("in", arguments->in, "A .ckpt file or a directory of shards")->required();
  command->add_option("out", arguments->out, "The .ckpt file to write")->required();
  command->add_option(
      "--quant", arguments->quant,
      "int8 (the reference's) or int4 (smaller and coarser; the reference cannot read it); "
      "weights are left as they are when left away");
  command->add_option(
      "--dtype", arguments->dtype,
      "bfloat16, float16 or float32, of what is not quantised; the file's when left "
      "away");
  command->add_flag("--force", arguments->force, "Replace the output if it is there already");
  command->callback([arguments] { convert(*arguments); });
}

}  // namespace gemma::cli
