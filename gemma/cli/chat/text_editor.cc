#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <unistd.h>

#include <fmt/format.h>
#include <sys/wait.h>

#include <gemma/cli/chat/text_editor.h>
#include <gemma/cli/text_file.h>

namespace gemma::cli {
namespace {

namespace fs = std::filesystem;

// A file of its own, which only the user may read, and which goes with this.
class TextToEdit {
 public:
  TextToEdit() : path_((fs::temp_directory_path() / "gemma-XXXXXX.txt").string()) {
    const int file = ::mkstemps(path_.data(), /*suffixlen=*/4);
    if (file < 0) {
      throw std::runtime_error(
          fmt::format("/edit: {} cannot be made: {}", path_, std::strerror(errno)));
    }
    ::close(file);
  }
  ~TextToEdit() { ::unlink(path_.c_str()); }
  TextToEdit(const TextToEdit&) = delete;
  TextToEdit& operator=(const TextToEdit&) = delete;

  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

std::string editor_command() {
  for (const auto* name : {"VISUAL", "EDITOR"}) {
    const auto* const value = std::getenv(name);
    if (value != nullptr && *value != '\0') return value;
  }
  return "vi";
}

// As one word of a shell.
std::string quoted(const std::string& text) {
  std::string word = "'";
  for (const char c : text) word += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return word + "'";
}

}  // namespace

std::string edit_text(const std::string& text) {
  const TextToEdit file;
  if (!(std::ofstream(file.path(), std::ios::binary) << text)) {
    throw std::runtime_error(fmt::format("/edit: {} cannot be written to", file.path()));
  }
  const auto command = editor_command();
  // Signals of the terminal are the editor's meanwhile.
  const int status = std::system(fmt::format("{} {}", command, quoted(file.path())).c_str());
  if (status != 0) {
    throw std::runtime_error(fmt::format("/edit: {} failed ({}); set EDITOR to another one",
                                         command,
                                         WIFEXITED(status) ? WEXITSTATUS(status) : status));
  }
  auto edited = read_text_file("/edit", file.path(), /*or_input=*/false);
  while (edited.ends_with('\n')) edited.pop_back();
  return edited;
}

}  // namespace gemma::cli
