#include <cmath>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "bindings.h"
#include "image.h"

#include <gemma/engine/engine.h>
#include <gemma/generate/multimodal_lm.h>
#include <gemma/generate/paligemma.h>

namespace gemma::bindings {
namespace {

// A schema may be a dict.
void set_grammar(GenerateRules& rules, GrammarSource::Kind kind, const py::handle& value) {
  if (value.is_none()) return;
  if (rules.grammar) {
    throw std::invalid_argument("json_schema, regex and grammar exclude one another; give one");
  }
  const bool is_dict = kind == GrammarSource::Kind::kJsonSchema && !py::isinstance<py::str>(value);
  rules.grammar = GrammarSource{
      kind, is_dict ? to_text(py::module_::import("json").attr("dumps")(value)) : to_text(value)};
}

using SetOption = void (*)(GenerateRules& rules, const py::handle& value);

// The keyword arguments of Session.generate and Request.
const std::map<std::string, SetOption>& options() {
  using Rules = GenerateRules;
  using Value = const py::handle&;
  static const std::map<std::string, SetOption> kOptions{
      {"max_tokens", [](Rules& r, Value v) { r.max_tokens = v.cast<int64_t>(); }},
      {"prompt_lookup", [](Rules& r, Value v) { r.prompt_lookup = v.cast<int64_t>(); }},
      {"temperature", [](Rules& r, Value v) { r.sampling.temperature = v.cast<double>(); }},
      {"top_p", [](Rules& r, Value v) { r.sampling.top_p = v.cast<double>(); }},
      {"top_k", [](Rules& r, Value v) { r.sampling.top_k = v.cast<int64_t>(); }},
      {"min_p", [](Rules& r, Value v) { r.sampling.min_p = v.cast<double>(); }},
      {"repetition_penalty",
       [](Rules& r, Value v) { r.sampling.repetition_penalty = v.cast<double>(); }},
      {"presence_penalty",
       [](Rules& r, Value v) { r.sampling.presence_penalty = v.cast<double>(); }},
      {"frequency_penalty",
       [](Rules& r, Value v) { r.sampling.frequency_penalty = v.cast<double>(); }},
      {"logit_bias",
       [](Rules& r, Value v) {
         const auto bias = v.cast<std::map<int64_t, float>>();
         r.sampling.bias = {bias.begin(), bias.end()};
       }},
      {"logprobs",
       [](Rules& r, Value v) { r.sampling.logprobs = v.cast<std::optional<int64_t>>(); }},
      {"seed", [](Rules& r, Value v) { r.seed = v.cast<std::optional<uint64_t>>(); }},
      {"stop",
       [](Rules& r, Value v) {
         r.stop = py::isinstance<py::str>(v) ? std::vector{to_text(v)}
                                             : v.cast<std::vector<std::string>>();
       }},
      {"stop_ids", [](Rules& r, Value v) { r.stop_ids = v.cast<std::vector<int64_t>>(); }},
      {"json_schema",
       [](Rules& r, Value v) { set_grammar(r, GrammarSource::Kind::kJsonSchema, v); }},
      {"regex", [](Rules& r, Value v) { set_grammar(r, GrammarSource::Kind::kRegex, v); }},
      {"grammar", [](Rules& r, Value v) { set_grammar(r, GrammarSource::Kind::kEbnf, v); }},
      {"priority", [](Rules& r, Value v) { r.priority = v.cast<int>(); }},
      {"timeout", [](Rules& r, Value v) { r.timeout = v.cast<std::optional<double>>(); }},
  };
  return kOptions;
}

GenerateRules to_rules(const py::kwargs& given) {
  GenerateRules rules;
  for (const auto& [key, value] : given) {
    const auto name = key.cast<std::string>();
    const auto option = options().find(name);
    if (option == options().end()) {
      std::vector<std::string> names;
      for (const auto& [known, _] : options()) names.push_back(known);
      throw py::type_error(fmt::format("got an unexpected keyword argument '{}'; options: {}", name,
                                       fmt::join(names, ", ")));
    }
    try {
      option->second(rules, value);
    } catch (const py::cast_error&) {
      throw py::type_error(
          fmt::format("{} cannot be {}", name, py::repr(value).cast<std::string>()));
    }
  }
  return rules;
}

using Tokens = std::vector<int64_t>;

using PyPrompt = std::variant<std::string, Tokens, Prompt>;

PromptPart to_part(const py::handle& given) {
  if (py::isinstance<py::str>(given)) return to_text(given);
  return given.cast<Image>();
}

PyPrompt to_prompt(const py::object& given) {
  if (py::isinstance<py::str>(given)) return to_text(given);
  try {
    if (is_pil_image(given)) return Prompt{to_part(given)};
    if (!py::isinstance<py::sequence>(given)) throw py::cast_error();
    const auto parts = py::reinterpret_borrow<py::sequence>(given);
    if (parts.size() == 0 || py::isinstance<py::int_>(parts[0])) return given.cast<Tokens>();
    Prompt prompt;
    for (const auto part : parts) prompt.push_back(to_part(part));
    return prompt;
  } catch (const py::cast_error&) {
    throw py::type_error(fmt::format(
        "a prompt is str, token ids, a PIL image, or a list of str and images, but not {}",
        py::repr(given).cast<std::string>()));
  }
}

// Text is the tokenizer's, as everywhere; images are encoded here.
PromptTokens tokenize(EngineModelImpl& model, const PyPrompt& prompt, bool bos) {
  if (const auto* text = std::get_if<std::string>(&prompt)) {
    return {.ids = model.tokenizer().encode(*text, bos), .images = {}};
  }
  if (const auto* tokens = std::get_if<Tokens>(&prompt)) return {.ids = *tokens, .images = {}};
  const auto& parts = std::get<Prompt>(prompt);
  if (auto* pali = dynamic_cast<PaliGemmaForConditionalGenerationImpl*>(&model)) {
    return pali->prompt_tokens(parts);
  }
  auto* sees = dynamic_cast<Gemma3ForMultimodalLMImpl*>(&model);
  if (sees == nullptr) {
    throw py::type_error(
        "a prompt has images, but only Gemma3ForMultimodalLM and PaliGemma take them");
  }
  return sees->prompt_tokens(parts, bos);
}

// "bfloat16" or torch.bfloat16.
torch::Dtype to_dtype(const py::object& dtype) {
  return py::isinstance<py::str>(dtype) ? dtype_from_string(to_text(dtype))
                                        : dtype.cast<torch::ScalarType>();
}

// A request of Python: its prompt may be text, which the engine's tokenizer takes later.
struct PyRequest {
  PyPrompt prompt;
  GenerateRules rules;
  std::shared_ptr<py::object> on_token;
  std::optional<int64_t> prompt_logprobs;
};

// A function of Python that any thread may hold and drop.
std::shared_ptr<py::object> shared_function(py::object function) {
  if (function.is_none()) return nullptr;
  return {new py::object(std::move(function)), [](py::object* held) {
            const py::gil_scoped_acquire gil;
            delete held;
          }};
}

// The engine's thread may wait for the GIL when the engine goes.
struct PyEngine {
  PyEngine(std::shared_ptr<EngineModelImpl> of, const EngineOptions& options)
      : model(std::move(of)), engine(std::make_unique<Engine>(EngineModel(model), options)) {}
  ~PyEngine() {
    const py::gil_scoped_release release;
    engine.reset();
  }
  PyEngine(const PyEngine&) = delete;
  PyEngine& operator=(const PyEngine&) = delete;

  std::shared_ptr<EngineModelImpl> model;
  std::unique_ptr<Engine> engine;
};

// A session, and what its prompts are for.
struct PySession {
  Session session;
  std::shared_ptr<EngineModelImpl> model;
};

// A generation, and the text that has come.
struct PyGeneration {
  explicit PyGeneration(Generation started) : generation(std::move(started)) {}

  // Waits; Ctrl-C, or any other signal whose Python handler raises, ends the wait.
  std::optional<GeneratedToken> next() {
    for (;;) {
      bool waited = false;
      std::optional<GeneratedToken> token;
      {
        const py::gil_scoped_release release;
        token = generation.next(/*seconds=*/0.1, waited);
      }
      if (token) {
        text += token->text;
        return token;
      }
      if (!waited) {
        if (!over) text += generation.rest();
        over = true;
        return std::nullopt;
      }
      if (PyErr_CheckSignals() != 0) {
        generation.cancel();
        throw py::error_already_set();
      }
    }
  }

  Generation generation;
  std::string text;
  bool over = false;
};

std::vector<Answer> generate_all(const PyEngine& self, const std::vector<PyRequest>& requests) {
  const py::gil_scoped_release release;
  std::vector<Request> ours;
  for (const auto& request : requests) {
    auto& ask = ours.emplace_back();
    auto [ids, images] = tokenize(*self.model, request.prompt, /*bos=*/true);
    ask.prompt = std::move(ids);
    ask.images = std::move(images);
    ask.rules = request.rules;
    ask.prompt_logprobs = request.prompt_logprobs;
    if (!request.on_token) continue;
    ask.on_token = [function = request.on_token](const GeneratedToken& token) {
      const py::gil_scoped_acquire gil;
      (*function)(token);
    };
  }
  return self.engine->generate(std::move(ours));
}

void bind_results(py::module_& m) {
  py::class_<GeneratedToken>(m, "Token", "A token of a text that is being generated.")
      .def_readonly("id", &GeneratedToken::id)
      .def_readonly("text", &GeneratedToken::text)
      .def_property_readonly("logprob",
                             [](const GeneratedToken& self) {
                               return std::isnan(self.logprob) ? std::nullopt
                                                               : std::optional(self.logprob);
                             })
      .def_property_readonly("top",
                             [](const GeneratedToken& self) {
                               std::vector<std::pair<int64_t, float>> top;
                               for (const auto& [token, logprob] : self.top) {
                                 top.emplace_back(token, logprob);
                               }
                               return top;
                             })
      .def("__repr__", [](const GeneratedToken& self) {
        return fmt::format("Token(id={}, text={})", self.id,
                           py::repr(py::str(self.text)).cast<std::string>());
      });
  py::class_<Answer>(m, "Answer", "What a request became.")
      .def_readonly("text", &Answer::text)
      .def_readonly("tokens", &Answer::tokens)
      .def_readonly("prompt", &Answer::prompt)
      .def_property_readonly("finish_reason",
                             [](const Answer& self) { return to_string(self.finish_reason); })
      .def_readonly("prompt_tokens", &Answer::prompt_tokens)
      .def_readonly("cached_tokens", &Answer::cached_tokens)
      .def_readonly("guessed_tokens", &Answer::guessed_tokens)
      .def_readonly("accepted_tokens", &Answer::accepted_tokens);
  py::class_<EngineStatus>(m, "Status", "What an engine does and holds.")
      .def_readonly("running", &EngineStatus::running)
      .def_readonly("waiting", &EngineStatus::waiting)
      .def_readonly("kv_bytes", &EngineStatus::kv_bytes)
      .def_readonly("kv_bytes_free", &EngineStatus::kv_bytes_free)
      .def_readonly("kv_bytes_cached", &EngineStatus::kv_bytes_cached);
  py::class_<PyRequest>(m, "Request", "A text to be continued once.")
      .def(py::init([](const py::object& prompt, const py::object& on_token,
                       std::optional<int64_t> prompt_logprobs, const py::kwargs& given) {
             return PyRequest{to_prompt(prompt), to_rules(given), shared_function(on_token),
                              prompt_logprobs};
           }),
           py::arg("prompt"), py::arg("on_token") = py::none(), py::kw_only(),
           py::arg("prompt_logprobs") = py::none());
}

void bind_sessions(py::module_& m) {
  py::class_<PyGeneration>(m, "Generation", "A text that is being generated: an iterator.")
      .def("__iter__", [](const py::object& self) { return self; })
      .def("__next__",
           [](PyGeneration& self) {
             auto token = self.next();
             if (!token) throw py::stop_iteration();
             return *std::move(token);
           })
      .def("__aiter__", [](const py::object& self) { return self; })
      .def("__anext__",
           [](const py::object& self) {
             return py::module_::import("gemma_libtorch.engine").attr("_next_of")(self);
           })
      .def("next", &PyGeneration::next, "The next token; None when the text has ended.")
      .def_readonly("text", &PyGeneration::text)
      .def_property_readonly(
          "finish_reason",
          [](const PyGeneration& self) {
            return self.over ? std::optional(to_string(self.generation.finish_reason()))
                             : std::nullopt;
          })
      .def_property_readonly(
          "prompt_tokens", [](const PyGeneration& self) { return self.generation.prompt_tokens(); })
      .def_property_readonly(
          "cached_tokens", [](const PyGeneration& self) { return self.generation.cached_tokens(); })
      .def_property_readonly(
          "guessed_tokens",
          [](const PyGeneration& self) { return self.generation.guessed_tokens(); })
      .def_property_readonly(
          "accepted_tokens",
          [](const PyGeneration& self) { return self.generation.accepted_tokens(); })
      .def("cancel", [](PyGeneration& self) { self.generation.cancel(); });
  py::class_<PySession>(m, "Session", "A text that is fed and continued in turns.")
      .def(
          "feed",
          [](PySession& self, const py::object& given) {
            const auto prompt = to_prompt(given);
            const py::gil_scoped_release release;
            const bool first = self.session.tokens().empty();
            const auto tokens = tokenize(*self.model, prompt, /*bos=*/first);
            self.session.feed(tokens.ids, tokens.images);
          },
          py::arg("prompt"))
      .def(
          "generate",
          [](PySession& self, const py::kwargs& given) {
            const auto rules = to_rules(given);
            const py::gil_scoped_release release;
            return std::make_unique<PyGeneration>(self.session.generate(rules));
          },
          py::keep_alive<0, 1>())
      .def(
          "fork", [](const PySession& self) { return PySession{self.session.fork(), self.model}; },
          ReleaseGil(), py::keep_alive<0, 1>())
      .def(
          "truncate", [](PySession& self, int64_t size) { self.session.truncate(size); },
          py::arg("size"), ReleaseGil())
      .def(
          "save",
          [](const PySession& self, const std::filesystem::path& path) { self.session.save(path); },
          py::arg("path"), ReleaseGil())
      .def_property_readonly("tokens",
                             [](const PySession& self) {
                               const py::gil_scoped_release release;
                               return self.session.tokens();
                             })
      .def("cancel", [](PySession& self) { self.session.cancel(); }, ReleaseGil());
  py::class_<PyEngine>(m, "Engine", "Continues any number of texts at once.")
      .def(py::init([](std::shared_ptr<EngineModelImpl> model, const py::object& kv_dtype,
                       std::optional<int64_t> kv_memory, int64_t max_batch, int64_t chunk,
                       bool prefix_cache, std::optional<std::shared_ptr<EngineModelImpl>> draft,
                       int64_t draft_tokens) {
             std::optional<EngineModel> draft_model;
             if (draft) draft_model.emplace(*std::move(draft));
             return std::make_unique<PyEngine>(std::move(model),
                                               EngineOptions{.kv_dtype = to_dtype(kv_dtype),
                                                             .kv_memory = kv_memory,
                                                             .max_batch = max_batch,
                                                             .chunk = chunk,
                                                             .prefix_cache = prefix_cache,
                                                             .draft = std::move(draft_model),
                                                             .draft_tokens = draft_tokens});
           }),
           py::arg("model"), py::kw_only(), py::arg("kv_dtype") = "bfloat16",
           py::arg("kv_memory") = py::none(), py::arg("max_batch") = 32, py::arg("chunk") = 512,
           py::arg("prefix_cache") = true, py::arg("draft") = py::none(),
           py::arg("draft_tokens") = 4)
      .def(
          "session",
          [](const PyEngine& self) { return PySession{self.engine->session(), self.model}; },
          py::keep_alive<0, 1>())
      .def(
          "load_session",
          [](const PyEngine& self, const std::filesystem::path& path) {
            return PySession{self.engine->load_session(path), self.model};
          },
          py::arg("path"), ReleaseGil(), py::keep_alive<0, 1>())
      .def("generate", generate_all, py::arg("requests"))
      .def_property_readonly("status", [](const PyEngine& self) {
        const py::gil_scoped_release release;
        return self.engine->status();
      });
}

}  // namespace

void bind_engine(py::module_& m) {
  bind_results(m);
  bind_sessions(m);
}

}  // namespace gemma::bindings
