#include <csignal>
#include <cstring>
#include <filesystem>
#include <map>
#include <spawn.h>
#include <stdexcept>
#include <unistd.h>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <sys/socket.h>
#include <sys/wait.h>

#include <gemma/cli/bench/bench_reference.h>
#include <gemma/cli/bench/bench_reference_script.h>

namespace gemma::cli {
namespace {

using Json = nlohmann::json;

template <typename T>
Json or_null(const std::optional<T>& value) {
  return value ? Json(*value) : Json();
}

// The fields of a GemmaConfig that a text model has, by the reference's names. Its own
// get_model_config does not know all our variants.
Json fields_of(const GemmaConfig& config) {
  Json types;
  if (config.attn_types) {
    for (const auto type : *config.attn_types) types.push_back(to_string(type));
  }
  Json wave_lengths;
  if (config.rope_wave_length) {
    for (const auto& [type, base] : *config.rope_wave_length) {
      wave_lengths[std::string(to_string(type))] = base;
    }
  }
  return {
      {"architecture", to_string(config.architecture)},
      {"vocab_size", config.vocab_size},
      {"max_position_embeddings", config.max_position_embeddings},
      {"num_hidden_layers", config.num_hidden_layers},
      {"num_attention_heads", config.num_attention_heads},
      {"num_key_value_heads", config.num_key_value_heads},
      {"hidden_size", config.hidden_size},
      {"intermediate_size", config.intermediate_size},
      {"head_dim", config.head_dim},
      {"rms_norm_eps", config.rms_norm_eps},
      {"quant", config.quant},
      {"attn_types", types},
      {"sliding_window_size", or_null(config.sliding_window_size)},
      {"final_logit_softcapping", or_null(config.final_logit_softcapping)},
      {"attn_logit_softcapping", or_null(config.attn_logit_softcapping)},
      {"query_pre_attn_scalar", or_null(config.query_pre_attn_scalar)},
      {"use_pre_ffw_norm", config.use_pre_ffw_norm},
      {"use_post_ffw_norm", config.use_post_ffw_norm},
      {"rope_wave_length", wave_lengths},
      {"use_qk_norm", config.use_qk_norm},
  };
}

std::string how_it_ended(int status) {
  return WIFSIGNALED(status)
             ? fmt::format("signal {} ({})", WTERMSIG(status), strsignal(WTERMSIG(status)))
             : fmt::format("exit status {}", WEXITSTATUS(status));
}

}  // namespace

// A process with whose standard input and output we exchange lines of JSON.
class BenchReference::Child {
 public:
  Child(const std::string& python, const std::string& argument) {
    int sockets[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) != 0) {
      throw std::runtime_error(
          fmt::format("--compare-python: no socket to be had: {}", std::strerror(errno)));
    }
    socket_ = sockets[0];
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, sockets[1], STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, sockets[1], STDOUT_FILENO);
    std::vector<std::string> words{python, "-c", bench_reference_script(), argument};
    std::vector<char*> argv;
    argv.reserve(words.size() + 1);
    for (auto& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    const auto error =
        ::posix_spawnp(&pid_, python.c_str(), &actions, nullptr, argv.data(), environ);
    posix_spawn_file_actions_destroy(&actions);
    ::close(sockets[1]);
    if (error != 0) {
      ::close(socket_);
      throw std::runtime_error(
          fmt::format("--python {} cannot be started: {}; name a Python that has torch", python,
                      std::strerror(error)));
    }
  }

  ~Child() {
    ::close(socket_);
    if (pid_ == 0) return;
    ::kill(pid_, SIGTERM);
    ::waitpid(pid_, nullptr, 0);
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  void send(const Json& message) {
    const auto line = message.dump() + '\n';
    // Less than a socket holds: it goes whole, or the process has ended, which `receive` reports.
    ::send(socket_, line.data(), line.size(), MSG_NOSIGNAL);
  }

  Json receive() {
    auto end = read_.find('\n');
    while (end == std::string::npos) {
      char part[4096];
      const auto count = ::recv(socket_, part, sizeof(part), 0);
      if (count < 0 && errno == EINTR) continue;
      if (count <= 0) throw std::runtime_error(ended());
      read_.append(part, static_cast<size_t>(count));
      end = read_.find('\n');
    }
    const auto message = Json::parse(read_.substr(0, end));
    read_.erase(0, end + 1);
    if (message.contains("error")) {
      throw std::runtime_error(fmt::format("--compare-python: gemma_pytorch failed: {}",
                                           message["error"].get<std::string>()));
    }
    return message;
  }

 private:
  std::string ended() {
    int status = 0;
    ::waitpid(pid_, &status, 0);
    pid_ = 0;
    return fmt::format(
        "--compare-python: gemma_pytorch's process ended with {}; does --python run torch, and is "
        "there memory for both models?",
        how_it_ended(status));
  }

  pid_t pid_ = 0;
  int socket_ = -1;
  std::string read_;
};

BenchReference::BenchReference(const std::string& checkout,
                               const std::string& python,
                               const GemmaConfig& config,
                               const std::string& ckpt,
                               torch::Device device) {
  const std::filesystem::path root = checkout;
  if (!std::filesystem::exists(root / "gemma" / "model.py")) {
    throw std::runtime_error(
        fmt::format("--compare-python {}: there is no gemma/model.py in it; give a checkout of "
                    "google/gemma_pytorch",
                    checkout));
  }
  const Json argument{{"checkout", std::filesystem::absolute(root).string()},
                      {"fields", fields_of(config)},
                      {"ckpt", ckpt},
                      {"device", device.str()}};
  child_ = std::make_unique<Child>(python, argument.dump());
  child_->receive();
}

BenchReference::~BenchReference() = default;

double BenchReference::seconds(const BenchCase& test, const std::string& dtype, int threads) {
  child_->send({{"dtype", dtype},
                {"threads", threads},
                {"prompt", test.is_prefill() ? test.tokens : 1},
                {"steps", test.is_prefill() ? 0 : test.tokens - 1},
                {"depth", test.depth},
                {"sampled", test.is_sampled()}});
  return child_->receive()["seconds"].get<double>();
}

}  // namespace gemma::cli
