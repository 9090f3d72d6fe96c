#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "bindings.h"

#include <gemma/generate/chat_prompt.h>

namespace gemma::bindings {
namespace {

ChatMessage to_message(const py::handle& given) {
  try {
    return {chat_role(to_text(given["role"])), to_text(given["content"])};
  } catch (const py::error_already_set& error) {
    if (!error.matches(PyExc_KeyError) && !error.matches(PyExc_TypeError)) throw;
    throw py::type_error(
        fmt::format("chat: a message is {{\"role\": str, \"content\": str}}, but not {}",
                    py::repr(given).cast<std::string>()));
  }
}

}  // namespace

void bind_chat_prompt(py::module_& m) {
  py::class_<ChatPrompt>(m, "ChatPrompt", "The tokens of a chat.")
      .def(py::init<const Tokenizer&>(), py::arg("tokenizer"), py::keep_alive<1, 2>())
      .def(
          "encode",
          [](const ChatPrompt& self, const py::iterable& messages) {
            std::vector<ChatMessage> chat;
            for (const auto& message : messages) chat.push_back(to_message(message));
            const py::gil_scoped_release release;
            return self.encode(chat);
          },
          py::arg("messages"))
      .def_property_readonly("stop_ids", &ChatPrompt::stop_ids);
}

}  // namespace gemma::bindings
