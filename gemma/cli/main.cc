// The gemma program: one subcommand a file.
#include <cstdio>
#include <exception>
#include <malloc.h>
#include <string>

#include <CLI/CLI.hpp>
#include <c10/util/Exception.h>
#include <fmt/format.h>

#include <gemma/cli/bench/bench.h>
#include <gemma/cli/convert.h>
#include <gemma/cli/info.h>
#include <gemma/cli/perplexity.h>
#include <gemma/cli/run.h>

namespace {

// The first line of a message: LibTorch adds a backtrace below.
std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

int report(const std::string& message) {
  fmt::print(stderr, "gemma: {}\n", first_line(message));
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
  gemma::cli::add_info(app);
  gemma::cli::add_bench(app);
  gemma::cli::add_convert(app);
  gemma::cli::add_perplexity(app);
  try {
    app.parse(argc, argv);
    return 0;
  } catch (const CLI::ParseError& error) {
    return error.get_exit_code() == 0 ? app.exit(error) : (app.exit(error), 2);
  } catch (const c10::Error& error) {
    return report(error.what_without_backtrace());
  } catch (const std::exception& error) {
    return report(error.what());
  }
}
