#include <clocale>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <histedit.h>
#include <langinfo.h>
#include <string_view>
#include <system_error>
#include <unistd.h>

#include <gemma/cli/chat/line_editor.h>

namespace gemma::cli {
namespace {

namespace fs = std::filesystem;

constexpr int kHistorySize = 1000;

// Letters beyond ASCII are typed and shown only in a locale that knows them.
void use_utf8() {
  std::setlocale(LC_CTYPE, "");
  if (std::string_view(nl_langinfo(CODESET)) != "UTF-8") std::setlocale(LC_CTYPE, "C.UTF-8");
}

// Empty where there is no place for it.
fs::path history_file() {
  const auto* const state = std::getenv("XDG_STATE_HOME");
  const auto* const home = std::getenv("HOME");
  fs::path folder;
  if (state != nullptr && fs::path(state).is_absolute()) {  // The others are to be ignored.
    folder = state;
  } else if (home != nullptr && *home != '\0') {
    folder = fs::path(home) / ".local" / "state";
  } else {
    return {};
  }
  std::error_code failed;
  fs::create_directories(folder / "gemma", failed);
  return failed ? fs::path() : folder / "gemma" / "chat_history";
}

}  // namespace

struct LineEditor::Impl {
  static char* prompt_of(EditLine* editor) { return of(editor).prompt.data(); }

  // Ctrl-C.
  static unsigned char abandon(EditLine* editor, int /*key*/) {
    of(editor).is_abandoned = true;
    return CC_NEWLINE;
  }

  // Ctrl-Z.
  static unsigned char suspend(EditLine* editor, int /*key*/) {
    el_set(editor, EL_PREP_TERM, 0);
    std::raise(SIGTSTP);
    el_set(editor, EL_PREP_TERM, 1);
    return CC_REDISPLAY;
  }

  static Impl& of(EditLine* editor) {
    void* self = nullptr;
    el_get(editor, EL_CLIENTDATA, &self);
    return *static_cast<Impl*>(self);
  }

  explicit Impl(std::FILE* screen_file)
      : screen(screen_file),
        editor(el_init("gemma", stdin, screen, screen)),
        past(history_init()),
        file(history_file()) {
    el_set(editor, EL_CLIENTDATA, this);
    el_set(editor, EL_PROMPT, prompt_of);
    el_set(editor, EL_EDITOR, "emacs");
    el_set(editor, EL_SIGNAL, 1);  // A signal finds the terminal as it was.
    HistEvent event;
    history(past, &event, H_SETSIZE, kHistorySize);
    history(past, &event, H_SETUNIQUE, 1);
    if (!file.empty()) history(past, &event, H_LOAD, file.c_str());
    el_set(editor, EL_HIST, history, past);
    el_source(editor, nullptr);  // The user's own keys, of ~/.editrc.
    // Keys that are signals elsewhere are those of the line here.
    el_set(editor, EL_SETTY, "-d", "-isig", nullptr);
    bind("^C", "gemma-abandon", "Abandon the line", abandon);
    bind("^Z", "gemma-suspend", "Suspend the program", suspend);
    bind("^I", "gemma-complete", "Complete a file's name", _el_fn_complete);
    el_set(editor, EL_BIND, "^R", "em-inc-search-prev", nullptr);
  }

  ~Impl() {
    el_end(editor);
    history_end(past);
  }

  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  void bind(const char* key,
            const char* name,
            const char* help,
            unsigned char (*function)(EditLine*, int)) {
    el_set(editor, EL_ADDFN, name, help, function);
    el_set(editor, EL_BIND, key, name, nullptr);
  }

  std::FILE* screen;
  EditLine* editor;
  History* past;
  fs::path file;
  std::string prompt;
  bool is_abandoned = false;
};

std::unique_ptr<LineEditor> LineEditor::open() {
  const auto* const kind = std::getenv("TERM");
  if (kind == nullptr || *kind == '\0' || std::string_view(kind) == "dumb") return nullptr;
  if (::isatty(STDIN_FILENO) == 0) return nullptr;
  for (auto* screen : {stderr, stdout}) {
    if (::isatty(::fileno(screen)) != 0) {
      return std::unique_ptr<LineEditor>(new LineEditor(screen));
    }
  }
  return nullptr;
}

LineEditor::LineEditor(std::FILE* screen) {
  use_utf8();
  impl_ = std::make_unique<Impl>(screen);
}

LineEditor::~LineEditor() = default;

LineEditor::Read LineEditor::read(const std::string& prompt, std::string& line) {
  impl_->prompt = prompt;
  impl_->is_abandoned = false;
  el_set(impl_->editor, EL_PREP_TERM, 1);  // Left to itself, it does so when a key comes.
  int size = 0;
  const auto* const typed = el_gets(impl_->editor, &size);
  if (impl_->is_abandoned) {
    std::fputs("^C\n", impl_->screen);
    return Read::kAbandoned;
  }
  if (typed == nullptr || size <= 0) return Read::kEnd;
  line.assign(typed, static_cast<size_t>(size));
  if (line.ends_with('\n')) line.pop_back();
  return Read::kLine;
}

void LineEditor::remember(const std::string& text) {
  HistEvent event;
  history(impl_->past, &event, H_ENTER, text.c_str());
  if (!impl_->file.empty()) history(impl_->past, &event, H_SAVE, impl_->file.c_str());
}

}  // namespace gemma::cli
