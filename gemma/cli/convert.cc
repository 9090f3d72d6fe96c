#include <array>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <gemma/checkpoint/mapped_file.h>
#include <gemma/checkpoint/output_directory.h>
#include <gemma/checkpoint/output_file.h>
#include <gemma/checkpoint/safetensors_writer.h>
#include <gemma/checkpoint/torch_writer.h>
#include <gemma/cli/convert.h>
#include <gemma/cli/interrupt.h>
#include <gemma/cli/model_options.h>
#include <gemma/cli/output.h>
#include <gemma/cli/progress.h>
#include <gemma/config/config.h>
#include <gemma/convert/convert.h>
#include <gemma/convert/gguf_export.h>
#include <gemma/convert/hf_writer.h>
#include <gemma/convert/transformer_lens.h>
#include <gemma/weights/checkpoint_config.h>
#include <gemma/weights/hf/hf_config.h>
#include <gemma/weights/hf/hf_tokenizer.h>
#include <gemma/weights/hf/hf_tokenizer_writer.h>
#include <gemma/weights/load_tokenizer.h>
#include <gemma/weights/stop_tokens.h>

namespace gemma::cli {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

struct ConvertArguments {
  std::string in;
  std::string out;
  std::string to = "ckpt";
  std::string variant;  // Empty: detected from the checkpoint.
  std::string quant;    // Empty: leave weights as they are.
  std::string dtype;    // Empty: the file's.
  bool force = false;
};

struct Written {
  int64_t tensors = 0, quantized = 0;
  uint64_t bytes = 0;
};

[[noreturn]] void refuse(const fs::path& path, std::string_view what) {
  throw std::invalid_argument(fmt::format("convert: {}: {}", path.string(), what));
}

constexpr auto kGguf = "gguf";
constexpr auto kTokenizer = "tokenizer.model";

ConvertOptions parse(const ConvertArguments& arguments) {
  ConvertOptions options;
  // GGUF has block formats of its own, of which write_gguf knows.
  if (!arguments.quant.empty() && arguments.to != kGguf) {
    options.quant = quant_from_string(arguments.quant);
  }
  if (!arguments.dtype.empty()) options.dtype = dtype_from_string(arguments.dtype);
  return options;
}

fs::path folder_of(const fs::path& file) {
  return file.has_parent_path() ? file.parent_path() : fs::path(".");
}

// The file could be replaced while it is read, but a typing error must not cost the original.
void check_out(const ConvertArguments& arguments, const WeightSource& source) {
  const auto is_input = [&](const fs::path& path) {
    std::error_code absent;
    return fs::equivalent(path, arguments.out, absent);
  };
  bool is_same = is_input(arguments.in);
  for (const auto& entry : source.entries()) is_same |= is_input(source.file_of(entry.name));
  if (is_same) refuse(arguments.out, "is the input; give the output another name");
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

// The file `name` beside the input, or in it, to `folder`, unless there is one.
void copy_along(const fs::path& in, const fs::path& folder, std::string_view name) {
  const auto from = (fs::is_directory(in) ? in : folder_of(in)) / name;
  const auto to = folder / name;
  if (!fs::exists(from) || fs::exists(to)) return;
  const MappedFile source(from);
  OutputFile target(to);
  target.write(source.bytes());
  target.commit();
}

void write_unless_there(const fs::path& path, std::string_view text) {
  if (fs::exists(path)) return;
  OutputFile target(path);
  target.write(std::as_bytes(std::span(text)));
  target.commit();
}

// How many tokens there can be.
std::optional<int64_t> rows_of_embedding(const WeightSource& source) {
  for (const auto* name : {"embedder.weight", "text_token_embedder.weight"}) {
    const auto* const entry = source.find(name);
    if (entry != nullptr && entry->sizes.size() == 2) return entry->sizes[0];
  }
  return std::nullopt;
}

// tokenizer.model to `folder`, where gemma run looks for it, unless there is one: the file beside
// the weights, as official downloads have it, or the tokenizer in other files, with the tokens that
// were added to it.
void bring_tokenizer(const fs::path& in, const WeightSource& source, const fs::path& folder) {
  const auto path = tokenizer_of(source);
  if (!path || fs::exists(folder / kTokenizer)) return;
  if (path->ends_with(kTokenizer) && hf_added_tokens(fs::path(*path).parent_path()).empty()) {
    copy_along(in, folder, kTokenizer);
  } else {
    write_unless_there(folder / kTokenizer,
                       load_tokenizer(*path, rows_of_embedding(source)).serialized());
  }
  note("brought {} along\n", kTokenizer);
}

// What transformers wants beside the weights: as the source has it, else as the tokenizer says.
void bring_hf_files(const ConvertArguments& arguments,
                    const WeightSource& source,
                    const fs::path& folder) {
  bring_tokenizer(arguments.in, source, folder);
  for (const auto* name :
       {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
        "generation_config.json", "chat_template.jinja", "chat_template.json",
        "preprocessor_config.json", "processor_config.json"}) {
    copy_along(arguments.in, folder, name);
  }
  if (const auto* const metadata = source.checkpoint().metadata()) {
    const auto chat = metadata->get<std::string>("tokenizer.chat_template");
    if (chat) write_unless_there(folder / "chat_template.jinja", *chat);
  }
  if (!fs::exists(folder / kTokenizer)) return;
  const auto pieces = Tokenizer((folder / kTokenizer).string()).pieces();
  write_unless_there(folder / "tokenizer.json", hf_tokenizer_json(pieces));
  write_unless_there(folder / "tokenizer_config.json", hf_tokenizer_config(pieces));
  write_unless_there(folder / "generation_config.json",
                     hf_generation_config(pieces, stop_tokens(arguments.in)));
}

void print_read(const WeightSource& source) {
  int64_t bytes = 0;
  for (const auto& entry : source.entries()) bytes += static_cast<int64_t>(entry.nbytes);
  const auto detected = detect_variant(source);
  note("read {}: {}, {} tensors, {:.1f} MB\n", source.path(),
       detected ? "variant " + detected->variant : "no known variant", source.entries().size(),
       static_cast<double>(bytes) / 1e6);
}

// Shows the progress, and ends the conversion where a signal asked for it.
ProgressCallback watched(ProgressBar& bar) {
  return [&bar](const LoadProgress& progress) {
    check_interrupt();
    bar(progress);
  };
}

// gemma_pytorch's file.
Written write_ckpt(const ConvertArguments& arguments,
                   const WeightSource& source,
                   const ConvertOptions& options) {
  const fs::path out = arguments.out;
  if (out.extension() != ".ckpt") {
    refuse(out, "end the output's name in .ckpt, or say what it is to be with --to");
  }
  TorchWriter writer(out, arguments.force);
  // For readers that do not know the model by its shapes.
  if (auto config = config_of(source, arguments.variant)) {
    if (options.dtype) config->dtype = dtype_to_string(*options.dtype);
    config->quant = false;  // Which the weights say themselves, and a config.json cannot.
    writer.set_config(config_to_hf(*config));
  }
  print_read(source);
  ProgressBar bar("Converting");
  Written written;
  convert_weights(
      source, options,
      [&](const std::string& name, const torch::Tensor& tensor) {
        writer.add(name, tensor);
        ++written.tensors;
        const auto dtype = tensor.scalar_type();
        if (dtype == torch::kChar || dtype == torch::kByte) ++written.quantized;
      },
      watched(bar));
  writer.finish();
  written.bytes = writer.size();
  bring_tokenizer(arguments.in, source, folder_of(out));
  return written;
}

// A directory of Hugging Face transformers.
Written write_hf_directory(const ConvertArguments& arguments,
                           const WeightSource& source,
                           const ConvertOptions& options) {
  const auto config = find_config(source, arguments.variant);
  OutputDirectory directory(arguments.out, arguments.force, "config.json");
  print_read(source);
  ProgressBar bar("Converting");
  const auto saved = write_hf(source, config, options, directory.part(), watched(bar));
  bring_hf_files(arguments, source, directory.part());
  directory.commit();
  return {.tensors = saved.tensors, .quantized = 0, .bytes = saved.bytes};
}

// What to_transformer_lens makes of all tensors, by its own word: on the meta device, without data.
std::vector<TensorSpec> transformer_lens_tensors(const std::vector<TensorSpec>& ours,
                                                 const GemmaConfig& config) {
  std::vector<TensorSpec> all;
  for (const auto& [name, dtype, sizes] : ours) {
    const auto shape = torch::empty(sizes, torch::dtype(dtype).device(torch::kMeta));
    for (const auto& [theirs, value] : to_transformer_lens(name, shape, config)) {
      all.push_back({theirs, value.scalar_type(), value.sizes().vec()});
    }
  }
  return all;
}

// A safetensors file with what TransformerLens' HookedTransformer.load_state_dict takes.
Written write_transformer_lens(const ConvertArguments& arguments,
                               const WeightSource& source,
                               const ConvertOptions& options) {
  if (options.quant) {
    throw std::invalid_argument(
        "convert: TransformerLens reads no quantised weights; omit --quant");
  }
  const auto config = find_config(source, arguments.variant);
  auto tensors = transformer_lens_tensors(converted_tensors(source, options), config);
  Written written{.tensors = std::ssize(tensors)};
  SafetensorsWriter writer(arguments.out, std::move(tensors), arguments.force);
  print_read(source);
  ProgressBar bar("Converting");
  convert_weights(
      source, options,
      [&](const std::string& name, const torch::Tensor& tensor) {
        for (const auto& [theirs, value] : to_transformer_lens(name, tensor, config)) {
          writer.add(theirs, value);
        }
      },
      watched(bar));
  writer.finish();
  written.bytes = writer.size();
  return written;
}

// A file that llama.cpp reads.
Written write_gguf(const ConvertArguments& arguments,
                   const WeightSource& source,
                   const ConvertOptions& options) {
  if (!arguments.quant.empty() && arguments.quant != "q8_0") {
    throw std::invalid_argument(
        fmt::format("convert: --quant '{}' is not written to GGUF; valid: q8_0", arguments.quant));
  }
  const auto config = find_config(source, arguments.variant);
  const auto tokenizer_path = tokenizer_of(source);
  if (!tokenizer_path) {
    refuse(arguments.in,
           "no tokenizer.model or tokenizer.json beside it, which goes into a GGUF file; put it "
           "there");
  }
  const auto tokenizer = load_tokenizer(*tokenizer_path, config.vocab_size);
  print_read(source);
  ProgressBar bar("Converting");
  Written written;
  const bool q8_0 = !arguments.quant.empty();
  written.bytes = export_gguf(source, config, tokenizer, arguments.out,
                              {.dtype = options.dtype, .q8_0 = q8_0, .overwrite = arguments.force},
                              [&](const LoadProgress& progress) {
                                written.tensors = progress.tensors_total;
                                watched(bar)(progress);
                              });
  const auto file = Checkpoint::open(arguments.out);
  for (const auto& entry : file.entries()) {
    if (entry.encoding != Encoding::kPlain) ++written.quantized;
  }
  return written;
}

struct Format {
  std::string_view name;
  Written (*write)(const ConvertArguments&, const WeightSource&, const ConvertOptions&);
};

constexpr std::array kFormats = {Format{"ckpt", write_ckpt}, Format{"hf", write_hf_directory},
                                 Format{"transformer_lens", write_transformer_lens},
                                 Format{kGguf, write_gguf}};

Format format_of(const std::string& name) {
  std::vector<std::string_view> names;
  for (const auto& format : kFormats) {
    if (format.name == name) return format;
    names.push_back(format.name);
  }
  throw std::invalid_argument(
      fmt::format("convert: --to '{}' is unknown; valid: {}", name, fmt::join(names, ", ")));
}

void convert(const ConvertArguments& arguments) {
  const auto start = Clock::now();
  const InterruptGuard guard;
  const auto options = parse(arguments);
  const auto format = format_of(arguments.to);
  const auto source = WeightSource::open(arguments.in);
  check_out(arguments, source);
  check_space(arguments.out, converted_bytes(source, options));
  const auto written = format.write(arguments, source, options);
  note("wrote {}: {} tensors, {} of them quantised, {:.1f} MB, in {:.1f} s\n", arguments.out,
       written.tensors, written.quantized, static_cast<double>(written.bytes) / 1e6,
       std::chrono::duration<double>(Clock::now() - start).count());
}

}  // namespace

void add_convert(CLI::App& app) {
  const auto arguments = std::make_shared<ConvertArguments>();
  auto* command = app.add_subcommand(
      "convert", "Write a checkpoint anew: for Hugging Face, with int8 weights, in another dtype.");
  command
      ->add_option(
          "in", arguments->in,
          "A .ckpt, .safetensors or .gguf file, or a directory of shards or of Hugging Face")
      ->required();
  command->add_option("out", arguments->out, "The file or directory to write")->required();
  command
      ->add_option(
          "--to", arguments->to,
          "ckpt (gemma_pytorch's file), hf (a directory of Hugging Face transformers), "
          "transformer_lens (safetensors for HookedTransformer) or gguf (llama.cpp's file)")
      ->capture_default_str();
  command->add_option("--variant", arguments->variant,
                      "What the model is; detected from the checkpoint when omitted");
  command->add_option(
      "--quant", arguments->quant,
      "int8 (the reference's) or int4 (smaller and coarser; the reference cannot read it); "
      "to GGUF: q8_0; weights are left as they are when omitted");
  command->add_option(
      "--dtype", arguments->dtype,
      "bfloat16, float16 or float32, of what is not quantised; the file's when left "
      "away");
  command->add_flag("--force", arguments->force, "Replace the output if it is there already");
  command->callback([arguments] { convert(*arguments); });
}

}  // namespace gemma::cli
