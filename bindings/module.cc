#include <exception>
#include <utility>

#include <c10/util/Exception.h>

#include "bindings.h"

#include <gemma/errors.h>

namespace {

// LibTorch's messages carry a C++ backtrace that means nothing to a Python user.
void translate(std::exception_ptr error) {
  try {
    if (error) std::rethrow_exception(std::move(error));
  } catch (const gemma::FileNotFound& e) {
    PyErr_SetString(PyExc_FileNotFoundError, e.what());
  } catch (const c10::IndexError& e) {
    PyErr_SetString(PyExc_IndexError, e.what_without_backtrace());
  } catch (const c10::ValueError& e) {
    PyErr_SetString(PyExc_ValueError, e.what_without_backtrace());
  } catch (const c10::TypeError& e) {
    PyErr_SetString(PyExc_TypeError, e.what_without_backtrace());
  } catch (const c10::Error& e) {
    PyErr_SetString(PyExc_RuntimeError, e.what_without_backtrace());
  }
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  using namespace gemma::bindings;
  m.doc() = "Gemma in C++ and LibTorch. Use the modules of the package, as config and model.";
  py::module_::import("torch");
  py::register_local_exception_translator(translate);
  bind_config(m);
  bind_tokenizer(m);
  bind_image(m);
  bind_pan_and_scan(m);
  bind_preprocessor(m);
  bind_gemma3_preprocessor(m);
  bind_nn_module(m);
  bind_rotary(m);
  bind_rotary_embedding(m);
  bind_linear(m);
  bind_embedding(m);
  bind_rms_norm(m);
  bind_mlp(m);
  bind_attention(m);
  bind_decoder_layer(m);
  bind_gemma_model(m);
  bind_sampler(m);
  bind_language_model(m);
  bind_taps(m);
  bind_causal_lm(m);
  bind_siglip_vision_model(m);
  bind_multimodal_lm(m);
  bind_paligemma(m);
  bind_summary(m);
  bind_embedding_gemma(m);
  bind_engine(m);
  bind_recurrentgemma(m);
  bind_chat_prompt(m);
  bind_fim_prompt(m);
}
