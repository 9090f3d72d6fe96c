// The gemma program: one subcommand a file.
#include <csignal>
#include <exception>
#include <malloc.h>
#include <string>
#include <string_view>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <c10/util/Exception.h>
#include <fmt/format.h>

#include <gemma/cli/activations.h>
#include <gemma/cli/bench/bench.h>
#include <gemma/cli/chat/chat.h>
#include <gemma/cli/convert.h>
#include <gemma/cli/embed.h>
#include <gemma/cli/info.h>
#include <gemma/cli/interrupt.h>
#include <gemma/cli/lens/lens.h>
#include <gemma/cli/next.h>
#include <gemma/cli/output.h>
#include <gemma/cli/perplexity.h>
#include <gemma/cli/run.h>
#include <gemma/cli/sae.h>
#include <gemma/cli/serve.h>

namespace {

// The first line of a message: LibTorch adds a backtrace below.
std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

int report(const std::string& message) {
  gemma::cli::note("gemma: {}\n", first_line(message));
  return 1;
}

// A mapped file that somebody cuts off has no bytes behind the pages that are read next.
void explain_bus_error(int /*signal*/) {
  constexpr std::string_view kText =
      "gemma: a file that is in use was cut off or cannot be read any more; was it overwritten?\n";
  [[maybe_unused]] const auto written = ::write(STDERR_FILENO, kText.data(), kText.size());
  ::_exit(1);
}

int die_by(int signal_number) {
  std::signal(signal_number, SIG_DFL);
  std::raise(signal_number);
  return 1;
}

// Each step asks for the memory that the one before gave back. Left to itself, glibc returns it to
// the system in between, and its pages are cleared anew.
void keep_freed_memory() {
  constexpr int kMega = 1 << 20;
  mallopt(M_MMAP_THRESHOLD, 32 * kMega);
  mallopt(M_TRIM_THRESHOLD, 256 * kMega);
}

}  // namespace

int main(int argc, char** argv) {
  gemma::cli::open_standard_streams();
  std::signal(SIGBUS, explain_bus_error);
  keep_freed_memory();
  CLI::App app{"Gemma in C++ and LibTorch."};
  app.name("gemma");
  app.require_subcommand(1);
  app.set_version_flag("--version", "gemma " GEMMA_VERSION);
  app.failure_message([](const CLI::App* failed, const CLI::Error& error) {
    const auto commands = failed->get_subcommands();
    return fmt::format("gemma: {}; see gemma {}--help\n", first_line(error.what()),
                       commands.empty() ? "" : commands.front()->get_name() + " ");
  });
  gemma::cli::add_run(app);
  gemma::cli::add_chat(app);
  gemma::cli::add_next(app);
  gemma::cli::add_info(app);
  gemma::cli::add_bench(app);
  gemma::cli::add_convert(app);
  gemma::cli::add_perplexity(app);
  gemma::cli::add_embed(app);
  gemma::cli::add_activations(app);
  gemma::cli::add_sae(app);
  gemma::cli::add_lens(app);
  gemma::cli::add_serve(app);
  try {
    try {
      app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
      if (app.exit(error) != 0) return 2;  // Help is no error.
    }
    gemma::cli::flush_output();
    return 0;
  } catch (const gemma::cli::Interrupted& interrupted) {
    return die_by(interrupted.signal);
  } catch (const c10::Error& error) {
    return report(error.what_without_backtrace());
  } catch (const std::exception& error) {
    return report(error.what());
  }
}
