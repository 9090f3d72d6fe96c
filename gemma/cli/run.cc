#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include <ATen/Context.h>
#include <sys/resource.h>

#include <gemma/cli/batch.h>
#include <gemma/cli/boxes.h>
#include <gemma/cli/model_options.h>
#include <gemma/cli/output.h>
#include <gemma/cli/progress.h>
#include <gemma/cli/run.h>
#include <gemma/cli/run_options.h>
#include <gemma/cli/steering.h>
#include <gemma/cli/text_file.h>
#include <gemma/engine/engine.h>
#include <gemma/generate/causal_lm.h>
#include <gemma/generate/fim_prompt.h>
#include <gemma/generate/generate.h>
#include <gemma/generate/request.h>
#include <gemma/text/stream_decoder.h>

namespace gemma::cli {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// The text without the newline that editors put at the end of a file.
std::string read_prompt(const RunOptions& options) {
  if (options.prompt_file.empty()) return checked_utf8("--prompt", options.prompt);
  auto text = read_text_file("--prompt_file", options.prompt_file);
  if (text.ends_with('\n')) text.pop_back();
  return text;
}

// When the images of a prompt were encoded, and when the steps of its generation ended; the first
// holds the prompt.
class StepTimer {
 public:
  void images_encoded() { encoded_ = Clock::now(); }

  void operator()(int64_t step) {
    last_ = Clock::now();
    if (step == 0) first_ = last_;
    steps_ = step + 1;
  }

  void print(double load_seconds, size_t images, int64_t prompt_tokens) const {
    const auto encode = std::chrono::duration<double>(encoded_ - start_).count();
    const auto prefill = std::chrono::duration<double>(first_ - encoded_).count();
    const auto decode = std::chrono::duration<double>(last_ - first_).count();
    note("load     {:8.2f} s\n", load_seconds);
    if (images > 0) note("images   {:8.2f} s, {} encoded\n", encode, images);
    if (steps_ > 0) print_rate("prefill", prompt_tokens, prefill);
    if (steps_ > 1) print_rate("decode", steps_ - 1, decode);
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    note("memory   {:8.0f} MB at the peak\n", static_cast<double>(usage.ru_maxrss) * 1024 / 1e6);
  }

 private:
  static void print_rate(const char* what, int64_t tokens, double seconds) {
    note("{:<8} {:8.2f} s, {} tokens, {:.1f} tokens/s\n", what, seconds, tokens,
         static_cast<double>(tokens) / seconds);
  }

  Clock::time_point start_ = Clock::now();
  Clock::time_point encoded_ = start_;
  Clock::time_point first_ = start_;
  Clock::time_point last_ = start_;
  int64_t steps_ = 0;
};

// Text on standard output as it is made.
class TextPrinter {
 public:
  explicit TextPrinter(const Tokenizer& tokenizer) : decoder_(tokenizer) {}

  void add(int64_t token) { print(decoder_.add(token)); }
  void finish() { print(decoder_.finish() + '\n'); }

 private:
  static void print(const std::string& text) {
    write_output(text);
    flush_output();
  }

  StreamDecoder decoder_;
};

// The prompt with the images where it says <image>, or in front of it where it does not.
Prompt with_images(std::string text, const std::vector<std::string>& files) {
  constexpr std::string_view kMarker = "<image>";
  Prompt parts;
  if (text.find(kMarker) == std::string::npos) {
    for (const auto& file : files) parts.emplace_back(read_image(file));
    parts.emplace_back(std::move(text));
    return parts;
  }
  size_t used = 0;
  for (auto at = text.find(kMarker); at != std::string::npos; at = text.find(kMarker), ++used) {
    if (used < files.size()) {
      parts.emplace_back(text.substr(0, at));
      parts.emplace_back(read_image(files[used]));
    }
    text.erase(0, at + kMarker.size());
  }
  if (used != files.size()) {
    throw std::invalid_argument(fmt::format(
        "--image is given {} times, but the prompt says <image> {} times; give as many files, or "
        "leave <image> out to have them in front",
        files.size(), used));
  }
  parts.emplace_back(std::move(text));
  return parts;
}

// What the prompt is for the model: a text model sees no images, and an <image> is text to it.
Prompt make_prompt(const RunOptions& options, const OpenCheckpoint& checkpoint) {
  auto text = read_prompt(options);
  if (options.images.empty()) return {std::move(text)};
  if (!checkpoint.config.vision_config && !checkpoint.paligemma) {
    throw std::invalid_argument(
        "--image: this model reads text only; 4b, 12b, 27b_v3 and PaliGemma see images");
  }
  return with_images(std::move(text), options.images);
}

struct Gap {
  std::string prefix, suffix;
  std::vector<std::string> files;
};

// The texts around a gap, line breaks at the ends of files included; none when it is not given.
std::optional<Gap> read_gap(const GapOptions& options) {
  if (!options.is_given()) {
    if (options.context_files.empty()) return std::nullopt;
    throw std::invalid_argument("--context_file is for a gap; give --prefix or --suffix, too");
  }
  Gap gap{.prefix = checked_utf8("--prefix", options.prefix.value_or("")),
          .suffix = checked_utf8("--suffix", options.suffix.value_or("")),
          .files = {}};
  if (!options.prefix_file.empty()) {
    gap.prefix = read_text_file("--prefix_file", options.prefix_file);
  }
  if (!options.suffix_file.empty()) {
    gap.suffix = read_text_file("--suffix_file", options.suffix_file);
  }
  for (const auto& file : options.context_files) {
    gap.files.push_back(read_text_file("--context_file", file));
  }
  return gap;
}

// A text without images continued with guesses: the same text in fewer passes.
void run_with_guesses(const RunOptions& options,
                      const EngineModel& model,
                      std::vector<int64_t> ids,
                      std::optional<EngineModel> draft,
                      std::optional<double> temperature,
                      const GenerateOptions& callbacks) {
  callbacks.on_prompt(0, std::ssize(ids));
  if (options.output_len == 0) return;
  Engine engine(model, {.kv_dtype = callbacks.kv_dtype,
                        .max_batch = 1,
                        .prefix_cache = false,
                        .draft = std::move(draft),
                        .draft_tokens = options.guess.draft_tokens});
  int64_t step = 0;
  Request request{.prompt = std::move(ids),
                  .rules = {.sampling = {.temperature = temperature.value_or(0.0),
                                         .top_p = options.top_p,
                                         .top_k = options.top_k},
                            .seed = options.seed,
                            .max_tokens = options.output_len,
                            .prompt_lookup = options.guess.prompt_lookup,
                            .stop_ids = callbacks.stop_ids},
                  .on_token = [&](const GeneratedToken& token) {
                    callbacks.on_token(0, token.id);
                    callbacks.on_step(step++);
                  }};
  const auto answer = std::move(engine.generate({std::move(request)}).front());
  note("guesses  {} of {} tokens were right\n", answer.accepted_tokens, answer.guessed_tokens);
}

// PaliGemma answers with what is likeliest, unless it is told otherwise.
std::optional<double> temperature_of(const RunOptions& options, const OpenCheckpoint& checkpoint) {
  return checkpoint.paligemma ? options.temperature : temperature_of(options);
}

void check_family(const RunOptions& options, const OpenCheckpoint& checkpoint) {
  if (!options.boxes.empty()) check_boxes(options.boxes, options.images);
  if (checkpoint.paligemma && options.gap.is_given()) {
    throw std::invalid_argument("--prefix and --suffix are for a text model, not for a PaliGemma");
  }
  if (checkpoint.recurrentgemma && options.gap.is_given()) {
    throw std::invalid_argument("--prefix and --suffix are for a CodeGemma, not a RecurrentGemma");
  }
  if (!checkpoint.paligemma && !options.boxes.empty()) {
    throw std::invalid_argument("--boxes: this model names no places; PaliGemma does");
  }
}

void run(const RunOptions& options) {
  check_sampling(/*num_prompts=*/1, options.output_len, temperature_of(options), options.top_p,
                 options.top_k);
  const auto load_start = Clock::now();
  const auto checkpoint = open_checkpoint(options.model);
  check_family(options, checkpoint);
  check_guesses(options.guess, options.model, checkpoint);
  if (options.guess.are_given() && (!options.images.empty() || checkpoint.paligemma)) {
    throw std::invalid_argument("--prompt_lookup and --draft are for texts without images");
  }
  const auto temperature = temperature_of(options, checkpoint);
  const auto prompt = make_prompt(options, checkpoint);
  const auto gap = read_gap(options.gap);
  auto model = load_model(options.model, checkpoint);
  auto draft = load_draft(options.guess, options.model);
  add_steering(model, options.steer);
  const auto load_seconds = seconds_since(load_start);

  at::manual_seed(options.seed);
  TextPrinter printer(model->tokenizer());
  StepTimer timer;
  ProgressBar encoding("Encoding images");
  int64_t prompt_tokens = 0;
  const GenerateOptions callbacks{
      .on_step = std::ref(timer),
      .on_token = [&](int64_t /*row*/, int64_t token) { printer.add(token); },
      .on_prompt = [&](int64_t /*row*/, int64_t tokens) { prompt_tokens = tokens; },
      .on_encode =
          [&](int64_t done, int64_t total) {
            encoding(done, total);
            if (done == total) timer.images_encoded();
          },
      .stop_ids =
          gap ? FimPrompt(model->tokenizer()).stop_ids() : stop_ids_of(model, options.model.ckpt),
      .kv_dtype = kv_dtype_of(options.model),
  };
  const auto device = device_of(options.model);
  std::vector<std::string> answers;
  const auto& tokenizer = model->tokenizer();
  auto ids = gap ? FimPrompt(tokenizer).encode(gap->prefix, gap->suffix, gap->files)
                 : std::vector<int64_t>();
  if (options.guess.are_given()) {
    if (!gap) ids = tokenizer.encode(std::get<std::string>(prompt.front()));
    run_with_guesses(options, model, std::move(ids), std::move(draft), temperature, callbacks);
  } else if (gap) {
    dynamic_cast<GemmaForCausalLMImpl&>(*model.ptr())
        .generate_ids({ids}, device, options.output_len, temperature, options.top_p, options.top_k,
                      callbacks);
  } else {
    answers = generate(model, {&prompt, 1}, device, options.output_len, temperature, options.top_p,
                       options.top_k, callbacks);
  }
  printer.finish();
  if (!options.boxes.empty()) write_boxes(options.boxes, options.images.front(), answers.front());
  timer.print(load_seconds, options.images.size(), prompt_tokens);
}

}  // namespace

void add_run(CLI::App& app) {
  const auto options = std::make_shared<RunOptions>();
  auto* command = app.add_subcommand("run", "Continue a prompt.");
  add_run_options(*command, *options);
  command->callback([options] {
    options->model.takes_paligemma = options->prompts.empty();
    options->model.takes_recurrentgemma = true;
    options->prompts.empty() ? run(*options) : run_batch(*options);
  });
}

}  // namespace gemma::cli
