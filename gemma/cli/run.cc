#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>
#include <iterator>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/resource.h>

#include <gemma/cli/progress.h>
#include <gemma/cli/run.h>
#include <gemma/models/causal_lm.h>

namespace gemma::cli {
namespace {

using Clock = std::chrono::steady_clock;

struct RunOptions {
  std::string ckpt;
  std::string variant;  // Empty: found out from the checkpoint.
  std::string device = "cpu";
  int64_t output_len = 10;
  uint64_t seed = 12345;
  std::optional<bool> quant;  // None: found out from the checkpoint.
  std::string prompt = "What are large language models?";
  std::string prompt_file;
  std::string tokenizer;  // Empty: tokenizer.model beside the checkpoint.
  double temperature = 1.0;
  double top_p = 0.95;
  int64_t top_k = 64;
  bool greedy = false;
  std::string dtype = "float32";
  int threads = 0;  // 0: LibTorch's choice.
};

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

torch::Device parse_device(const std::string& name) {
  const auto device = [&]() -> std::optional<torch::Device> {
    try {
      return torch::Device(name);
    } catch (const c10::Error&) {
      return std::nullopt;
    }
  }();
  if (!device || !(device->is_cpu() || device->is_cuda())) {
    throw std::invalid_argument(
        fmt::format("--device '{}' is unknown; valid devices: cpu, cuda, cuda:N", name));
  }
  if (device->is_cuda() && !at::hasCUDA()) {
    throw std::invalid_argument(
        fmt::format("--device {}: LibTorch finds no CUDA GPU here; use --device cpu", name));
  }
  return *device;
}

// All of a stream but the newline that editors put at the end of a file.
std::string read_text(std::istream& stream) {
  std::string text{std::istreambuf_iterator<char>(stream), {}};
  if (text.ends_with('\n')) text.pop_back();
  return text;
}

std::string read_prompt(const RunOptions& options) {
  if (options.prompt_file.empty()) return options.prompt;
  if (options.prompt_file == "-") return read_text(std::cin);
  std::ifstream file(options.prompt_file, std::ios::binary);
  if (!file || std::filesystem::is_directory(options.prompt_file)) {
    throw std::runtime_error(
        fmt::format("--prompt_file {}: cannot be read; give a text file, or - for standard input",
                    options.prompt_file));
  }
  return read_text(file);
}

// The tokenizer.model that official downloads put beside the weights.
std::string find_tokenizer(const RunOptions& options) {
  if (!options.tokenizer.empty()) return options.tokenizer;
  const std::filesystem::path ckpt = options.ckpt;
  const auto folder = std::filesystem::is_directory(ckpt) ? ckpt : ckpt.parent_path();
  const auto path = folder / "tokenizer.model";
  if (!std::filesystem::exists(path)) {
    throw std::runtime_error(fmt::format(
        "no {} beside the checkpoint; name the model's with --tokenizer", path.string()));
  }
  return path.string();
}

GemmaConfig make_config(const RunOptions& options) {
  auto config = GemmaConfig{};
  auto quant = options.quant.value_or(false);
  if (options.variant.empty()) {
    const auto detected = detect_variant(Checkpoint::open(options.ckpt));
    if (!detected) {
      throw std::runtime_error(
          fmt::format("{}: its shapes fit no variant; name one with --variant: {}", options.ckpt,
                      fmt::join(model_variants(), ", ")));
    }
    config = get_model_config(detected->variant, options.dtype);
    quant = options.quant.value_or(detected->quant);
  } else {
    config = get_model_config(options.variant, options.dtype);
  }
  if (config.vision_config) {
    throw std::invalid_argument(
        "the checkpoint or variant is multimodal (4b, 12b, 27b_v3), which gemma run cannot hold");
  }
  config.quant = quant;
  config.tokenizer = find_tokenizer(options);
  return config;
}

// When the steps of a generation ended; the first holds the prompt.
class StepTimer {
 public:
  void operator()(int64_t step) {
    last_ = Clock::now();
    if (step == 0) first_ = last_;
    steps_ = step + 1;
  }

  void print(double load_seconds, int64_t prompt_tokens) const {
    const auto prefill = std::chrono::duration<double>(first_ - start_).count();
    const auto decode = std::chrono::duration<double>(last_ - first_).count();
    fmt::print(stderr, "load     {:8.2f} s\n", load_seconds);
    if (steps_ > 0) print_rate("prefill", prompt_tokens, prefill);
    if (steps_ > 1) print_rate("decode", steps_ - 1, decode);
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    fmt::print(stderr, "memory   {:8.0f} MB at the peak\n",
               static_cast<double>(usage.ru_maxrss) * 1024 / 1e6);
  }

 private:
  static void print_rate(const char* what, int64_t tokens, double seconds) {
    fmt::print(stderr, "{:<8} {:8.2f} s, {} tokens, {:.1f} tokens/s\n", what, seconds, tokens,
               static_cast<double>(tokens) / seconds);
  }

  Clock::time_point start_ = Clock::now();
  Clock::time_point first_ = start_;
  Clock::time_point last_ = start_;
  int64_t steps_ = 0;
};

void run(const RunOptions& options) {
  const auto device = parse_device(options.device);
  if (options.threads < 0) {
    throw std::invalid_argument(
        fmt::format("--threads is {}, but must be 1 or more", options.threads));
  }
  if (options.threads > 0) at::set_num_threads(options.threads);
  at::manual_seed(options.seed);
  const auto prompt = read_prompt(options);

  const auto load_start = Clock::now();
  const auto config = make_config(options);
  const DefaultDtypeGuard guard(config.get_dtype());
  GemmaForCausalLM model(config);
  ProgressBar bar("Loading");
  model->load_weights(options.ckpt, std::ref(bar));
  model->to(device);
  model->eval();
  const auto load_seconds = seconds_since(load_start);

  const auto temperature = options.greedy ? std::nullopt : std::optional(options.temperature);
  StepTimer timer;
  const auto text = model->generate(prompt, device, options.output_len, temperature, options.top_p,
                                    options.top_k, std::ref(timer));
  fmt::print("{}\n", text);
  std::fflush(stdout);
  timer.print(load_seconds, static_cast<int64_t>(model->tokenizer().encode(prompt).size()));
}

// A flag in the reference's spelling and in the usual one.
std::string both(std::string name) {
  auto hyphens = name;
  for (auto& c : hyphens) {
    if (c == '_') c = '-';
  }
  return name == hyphens ? "--" + name : fmt::format("--{},--{}", name, hyphens);
}

}  // namespace

void add_run(CLI::App& app) {
  const auto options = std::make_shared<RunOptions>();
  auto* command = app.add_subcommand("run", "Continue a prompt.");
  command->add_option("--ckpt", options->ckpt, "Checkpoint: a .ckpt file or a directory of shards")
      ->required();
  command->add_option("--variant", options->variant,
                      "Model variant; found out from the checkpoint when left away");
  command->add_option("--device", options->device, "cpu, cuda or cuda:N")->capture_default_str();
  command->add_option(both("output_len"), options->output_len, "Tokens to generate")
      ->capture_default_str();
  command->add_option("--seed", options->seed, "Random seed")->capture_default_str();
  command->add_flag_callback(
      "--quant", [options] { options->quant = true; }, "The checkpoint has int8 weights");
  command->add_flag_callback(
      "--noquant", [options] { options->quant = false; }, "It has float weights");
  auto* prompt = command->add_option("--prompt", options->prompt, "Text to continue");
  prompt->capture_default_str();
  command
      ->add_option(both("prompt_file"), options->prompt_file,
                   "File with the text to continue, less a newline at its end; - is standard "
                   "input")
      ->excludes(prompt);
  command->add_option("--tokenizer", options->tokenizer,
                      "SentencePiece model; tokenizer.model beside the checkpoint when left away");
  command->add_option("--temperature", options->temperature, "0 takes the likeliest token")
      ->capture_default_str();
  command->add_option(both("top_p"), options->top_p, "Probability that the candidates add up to")
      ->capture_default_str();
  command->add_option(both("top_k"), options->top_k, "Number of candidates")->capture_default_str();
  command->add_flag("--greedy", options->greedy, "Always take the likeliest token");
  command->add_option("--dtype", options->dtype, "float32, bfloat16 or float16")
      ->capture_default_str();
  command->add_option("--threads", options->threads,
                      "CPU threads; LibTorch's choice when left away");
  command->callback([options] { run(*options); });
}

}  // namespace gemma::cli
