#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include <gemma/cli/embedding_model.h>
#include <gemma/cli/guess_options.h>
#include <gemma/cli/model_options.h>
#include <gemma/cli/output.h>
#include <gemma/cli/run_options.h>
#include <gemma/cli/serve.h>
#include <gemma/cli/stop_signals.h>
#include <gemma/cli/text_file.h>
#include <gemma/server/api.h>
#include <gemma/server/http_server.h>
#include <gemma/server/log_line.h>
#include <gemma/weights/hf/hf_embedding_gemma.h>

namespace gemma::cli {
namespace {

struct ServeOptions {
  ModelOptions model;
  std::string host = "127.0.0.1";
  uint16_t port = 8080;
  std::string served_name;  // Empty: the checkpoint's.
  std::string api_key, api_key_file;
  int64_t max_batch = 32;
  int64_t max_queue = 128;
  std::optional<int64_t> max_body;  // None: of a text model 10 MB, else with room for images.
  int64_t kv_memory = 0;            // In MB; 0: the engine's choice.
  double timeout = 0;               // Seconds; 0: none.
  double grace = 30;
  bool log_json = false;
  GuessOptions guess;
};

std::string name_of(const ServeOptions& options) {
  if (!options.served_name.empty()) return options.served_name;
  auto path = std::filesystem::weakly_canonical(options.model.ckpt);
  if (path.has_extension() && path.stem().string().starts_with("model")) path = path.parent_path();
  return path.stem().string();
}

std::vector<std::string> keys_of(const ServeOptions& options) {
  if (!options.api_key.empty()) return {options.api_key};
  if (options.api_key_file.empty()) return {};
  std::vector<std::string> keys;
  const auto text = read_text_file("--api_key_file", options.api_key_file, /*or_input=*/false);
  for (size_t begin = 0; begin < text.size();) {
    const auto end = std::min(text.find('\n', begin), text.size());
    if (end > begin) keys.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  if (keys.empty()) {
    throw std::runtime_error(
        fmt::format("--api_key_file {}: has no key; write one a line", options.api_key_file));
  }
  return keys;
}

// A PaliGemma's prompt goes through the model whole.
int64_t chunk_for(const EngineModelImpl& model) {
  return model.prefix_ignores_window() ? model.max_positions() : EngineOptions().chunk;
}

// None: it is an EmbeddingGemma, whose directory has been looked at.
std::optional<OpenCheckpoint> open(const ServeOptions& options) {
  const auto& model = options.model;
  if (has_sentence_transformer(model.ckpt)) {
    if (options.guess.are_given() || !model.variant.empty() || model.quant) {
      throw std::invalid_argument(
          "serve: an EmbeddingGemma takes no --draft, --prompt_lookup, --variant and --quant");
    }
    read_embedding_gemma_config(model.ckpt);
    return std::nullopt;
  }
  if (numerics_of(model) != Numerics::kFast) {
    throw std::invalid_argument(
        "serve: exact numerics continue no texts together; use --numerics fast on the CPU");
  }
  auto checkpoint = open_checkpoint(model);
  check_guesses(options.guess, model, checkpoint);
  if (checkpoint.paligemma && options.guess.are_given()) {
    throw std::invalid_argument("serve: a PaliGemma takes no --draft and --prompt_lookup");
  }
  return checkpoint;
}

// The server, and the threads that load the model and wait for signals.
class Serve {
 public:
  Serve(const ServeOptions& options, const StopSignals& signals)
      : options_(options),
        signals_(signals),
        checkpoint_(open(options)),
        keys_(keys_of(options)),
        server_(server_options(),
                [this](server::HttpRequest request, std::shared_ptr<server::HttpReply> reply) {
                  api_.handle(std::move(request), std::move(reply));
                }),
        api_(api_options()) {}

  void run() {
    if (!server_.is_local() && keys_.empty()) {
      note("gemma: anybody who reaches {} may use the model; --api_key asks for a key\n",
           server_.url());
    }
    show("serving {} on {}\n", name_of(options_), server_.url());
    flush_output();
    std::thread loader([this] { load(); });
    std::thread watcher([this] { watch(); });
    server_.run();
    is_over_ = true;
    watcher.join();
    if (!is_loaded_) die_by(caught_);  // To load is not interrupted.
    loader.join();
    api_.stop();
    if (error_) std::rethrow_exception(error_);
  }

 private:
  server::HttpServerOptions server_options() {
    return {.host = options_.host,
            .port = options_.port,
            .limits = {.body = static_cast<uint64_t>(options_.max_body.value_or(default_body()))},
            .error_body = server::unreadable_body,
            .log = [this](const server::HttpLog& entry) {
              api_.metrics().add_answer(entry.status);
              note("{}\n", options_.log_json ? log_json(entry) : log_line(entry));
            }};
  }

  int64_t default_body() const {
    const bool sees = checkpoint_ && (checkpoint_->config.vision_config || checkpoint_->paligemma);
    return sees ? kBodyWithImages : kBody;
  }

  server::ApiOptions api_options() const {
    return {.model_name = name_of(options_),
            .api_keys = keys_,
            .is_local = server_.is_local(),
            .max_texts = options_.max_batch + options_.max_queue,
            .timeout = options_.timeout > 0 ? std::optional(options_.timeout) : std::nullopt,
            .prompt_lookup = options_.guess.prompt_lookup,
            .log = [](const std::string& line) { note("gemma: {}\n", line); }};
  }

  void load() {
    try {
      checkpoint_ ? load_text_model() : load_embedder();
      note("the model is loaded\n");
    } catch (...) {
      error_ = std::current_exception();
      server_.stop();
    }
    is_loaded_ = true;
  }

  void load_embedder() {
    api_.set_embedder(std::make_unique<server::Embedder>(load_embedding_gemma(options_.model)));
  }

  void load_text_model() {
    auto model = load_model(options_.model, *checkpoint_);
    const auto stop_ids = stop_ids_of(model, options_.model.ckpt);
    EngineOptions engine{.kv_dtype = kv_dtype_of(options_.model),
                         .max_batch = options_.max_batch,
                         .chunk = chunk_for(*model),
                         .draft = load_draft(options_.guess, options_.model),
                         .draft_tokens = options_.guess.draft_tokens};
    if (options_.kv_memory > 0) engine.kv_memory = options_.kv_memory * kMega;
    api_.set_model(server::make_served_model(std::move(model), engine, stop_ids));
  }

  // Ends the server by a signal.
  void watch() {
    std::optional<int> signal_number;
    while (!is_over_ && !signal_number) signal_number = signals_.wait(kLook);
    if (!signal_number) return;
    caught_ = *signal_number;
    if (!is_loaded_) return server_.stop();
    note("answering what was asked, for {:g} s at most; a second signal ends at once\n",
         options_.grace);
    api_.close();
    server_.close();
    wait_until_over(options_.grace);
    if (is_over_) return;
    api_.stop();
    wait_until_over(kLastWords);
    server_.stop();
  }

  void wait_until_over(double seconds) {
    for (; !is_over_ && seconds > 0; seconds -= kLook) {
      if (const auto signal_number = signals_.wait(std::min(kLook, seconds)))
        die_by(*signal_number);
    }
  }

  static constexpr double kLook = 0.1;     // Seconds.
  static constexpr double kLastWords = 2;  // Likewise: until clients were told that it is over.
  static constexpr int64_t kMega = 1'000'000;
  static constexpr int64_t kBody = 10 * kMega, kBodyWithImages = 32 << 20;  // Bytes.

  const ServeOptions& options_;
  const StopSignals& signals_;
  std::optional<OpenCheckpoint> checkpoint_;  // None: of an EmbeddingGemma.
  std::vector<std::string> keys_;
  server::HttpServer server_;
  server::Api api_;
  std::atomic<bool> is_loaded_ = false, is_over_ = false;
  std::atomic<int> caught_ = SIGTERM;
  std::exception_ptr error_;  // Of loading.
};

void serve(const ServeOptions& options) {
  const StopSignals signals;  // Before there is another thread.
  Serve(options, signals).run();
}

void add_limits(CLI::App& command, ServeOptions& options) {
  command.add_option(both("max_batch"), options.max_batch, "Texts that are continued together")
      ->check(CLI::Range(1, 1024).description(""))
      ->capture_default_str();
  command
      .add_option(both("max_queue"), options.max_queue,
                  "Texts that wait; requests beyond them are refused")
      ->check(CLI::Range(0, 100'000).description(""))
      ->capture_default_str();
  command
      .add_option(both("max_body"), options.max_body,
                  "Bytes of a request; 10000000 when omitted, 33554432 of a model that sees images")
      ->check(CLI::Range(1000, 1'000'000'000).description(""));
  command
      .add_option(both("kv_memory"), options.kv_memory,
                  "Memory for keys and values in MB; 0: for max_batch texts, half of the machine's "
                  "at most")
      ->check(CLI::Range(0, 100'000'000).description(""))
      ->capture_default_str();
  command
      .add_option("--timeout", options.timeout, "Seconds that an answer may take; 0: any number")
      ->check(CLI::NonNegativeNumber.description(""))
      ->capture_default_str();
  command
      .add_option("--grace", options.grace,
                  "Seconds for answers that are under way when a signal ends the server")
      ->check(CLI::NonNegativeNumber.description(""))
      ->capture_default_str();
}

}  // namespace

void add_serve(CLI::App& app) {
  const auto options = std::make_shared<ServeOptions>();
  options->model.kv_dtype = "bfloat16";
  auto* command = app.add_subcommand("serve", "Serve a model to clients of OpenAI's API.");
  add_model_options(*command, options->model);
  command->add_option("--host", options->host, "Address to listen on")->capture_default_str();
  command->add_option("--port", options->port, "Port to listen on; 0: any that is free")
      ->capture_default_str();
  command->add_option(both("served_name"), options->served_name,
                      "Name of the model; that of its file or folder when omitted");
  auto* key = command->add_option(both("api_key"), options->api_key,
                                  "Key that clients have to send; other users of the machine can "
                                  "see it");
  command
      ->add_option(both("api_key_file"), options->api_key_file, "File with such keys, one a line")
      ->excludes(key);
  add_limits(*command, *options);
  add_guess_options(*command, options->guess);
  command->add_flag(both("log_json"), options->log_json,
                    "A line of JSON for each request, instead of text");
  command->callback([options] {
    options->model.takes_paligemma = options->model.takes_recurrentgemma = true;
    serve(*options);
  });
}

}  // namespace gemma::cli
