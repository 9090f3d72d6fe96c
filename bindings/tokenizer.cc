#include <string>
#include <vector>

#include "bindings.h"

#include <gemma/text/tokenizer.h>
#include <gemma/weights/load_tokenizer.h>

namespace gemma::bindings {
namespace {

std::vector<int64_t> encode(const Tokenizer& self, const py::object& s, bool bos, bool eos) {
  const auto text = py::isinstance<py::bytes>(s) ? s.cast<std::string>() : to_text(s);
  const py::gil_scoped_release release;
  return self.encode(text, bos, eos);
}

}  // namespace

void bind_tokenizer(py::module_& m) {
  py::class_<Tokenizer>(m, "Tokenizer", "tokenizer.py: Tokenizer.")
      .def(py::init([](const std::string& path) { return load_tokenizer(path); }),
           py::arg("model_path"),
           "A SentencePiece model with the tokens that Hugging Face's files beside it add, a "
           "tokenizer.json, or the tokenizer in a GGUF file. Raises FileNotFoundError, or "
           "RuntimeError when the file is none of them.")
      .def("encode", encode, py::arg("s"), py::arg("bos") = true, py::arg("eos") = false,
           "Text (str, or bytes in UTF-8) to token ids. Raises TypeError for a str that UTF-8 "
           "cannot "
           "hold.")
      .def("decode", &Tokenizer::decode, py::arg("t"), ReleaseGil(),
           "Token ids to text. Raises IndexError for an id outside the vocabulary.")
      .def("id_to_piece", &Tokenizer::id_to_piece, py::arg("id"))
      .def("piece_to_id", &Tokenizer::piece_to_id, py::arg("piece"))
      .def_property_readonly("n_words", &Tokenizer::n_words)
      .def_property_readonly("bos_id", &Tokenizer::bos_id)
      .def_property_readonly("eos_id", &Tokenizer::eos_id)
      .def_property_readonly("pad_id", &Tokenizer::pad_id)
      .def_property_readonly("boi_id", &Tokenizer::boi_id)
      .def_property_readonly("eoi_id", &Tokenizer::eoi_id)
      .def_property_readonly("image_token_placeholder_id", &Tokenizer::image_token_placeholder_id);
}

}  // namespace gemma::bindings
