#include <algorithm>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <gemma/cli/bench/bench.h>
#include <gemma/cli/bench/bench_case.h>
#include <gemma/cli/bench/bench_reference.h>
#include <gemma/cli/bench/bench_table.h>
#include <gemma/cli/bench/bench_work.h>
#include <gemma/cli/bench/probes.h>
#include <gemma/cli/bench/random_model.h>
#include <gemma/cli/model_options.h>
#include <gemma/cli/peak_memory.h>
#include <gemma/models/language_model.h>
#include <gemma/modules/weight_matrix.h>
#include <gemma/ops/parallel.h>
#include <gemma/weights/family.h>

namespace gemma::cli {
namespace {

constexpr double kGiga = 1e9;
constexpr double kMega = 1e6;

struct BenchOptions {
  ModelOptions model;
  std::vector<int64_t> prompts{512};
  std::vector<int64_t> outputs{128};
  std::vector<int64_t> depths{0};
  std::vector<int64_t> batches{1};
  std::vector<int> threads;           // Empty: LibTorch's choice.
  std::vector<std::string> numerics;  // Empty: fast on the CPU, exact elsewhere.
  int repetitions = 5;
  bool sampled = false;
  std::string format = "md";
  std::string checkout;  // Of gemma_pytorch; empty: no comparison.
  std::string python = "python3";
  std::vector<std::string> python_dtypes{"float32"};
};

// A test's repetitions; tokens and limits a second.
struct Measurements {
  Samples rate, stream, fma, sgemm;
  std::vector<Samples> reference;  // Of each dtype.
  int64_t peak_bytes = 0;
  std::optional<int64_t> kv_bytes = std::nullopt;
  int64_t regions = 0;  // Of a run, in which the threads were woken.
};

struct Subject {
  const BenchOptions& options;
  std::string name;  // Its variant.
  EngineModel model;
  torch::Dtype kv_dtype;
  int threads;
  StreamProbe* stream;
  BenchReference* reference;  // Or null.
};

// A limit, and where its measurements go.
struct Probe {
  std::function<double()> measure;
  Samples* samples;
};

// What limits the test: memory when weights are read for each token, arithmetic for many tokens,
// and either where texts are continued together.
std::vector<Probe> probes_of(const BenchCase& test, const Subject& subject, Measurements& result) {
  if (!subject.model->device().is_cpu()) return {};
  const Probe stream{[probe = subject.stream] { return probe->rate(); }, &result.stream};
  if (!test.is_prefill()) {
    return test.is_batch() ? std::vector{stream, {fma_rate, &result.fma}} : std::vector{stream};
  }
  const auto sgemm = std::make_shared<SgemmProbe>(test.tokens, subject.model->hidden_size(),
                                                  mlp_width(*subject.model));
  return {{fma_rate, &result.fma}, {[sgemm] { return sgemm->rate(); }, &result.sgemm}};
}

Measurements measure(const BenchCase& test, const Subject& subject) {
  const auto run = prepare(test, subject.model, subject.kv_dtype);
  const auto& dtypes = subject.options.python_dtypes;
  const auto reference_seconds = [&](size_t i) {
    return subject.reference->seconds(test, dtypes[i], subject.threads);
  };

  Measurements result;
  result.reference.resize(subject.reference == nullptr ? 0 : dtypes.size());
  const auto tokens = static_cast<double>(test.tokens * test.batch);
  reset_peak_memory();
  const auto regions = regions_begun();
  result.kv_bytes = run().kv_bytes;
  result.regions = regions_begun() - regions;
  result.peak_bytes = peak_memory() - subject.stream->bytes();
  const auto probes = probes_of(test, subject, result);
  for (size_t i = 0; i < result.reference.size(); ++i) reference_seconds(i);
  for (int repetition = 0; repetition < subject.options.repetitions; ++repetition) {
    // Before and after, so that a machine that becomes faster or slower does so for both.
    std::vector<double> before;
    before.reserve(probes.size());
    for (const auto& probe : probes) before.push_back(probe.measure());
    result.rate.add(tokens / run().seconds);
    for (size_t i = 0; i < probes.size(); ++i) {
      probes[i].samples->add((before[i] + probes[i].measure()) / 2);
    }
    for (size_t i = 0; i < result.reference.size(); ++i) {
      result.reference[i].add(tokens / reference_seconds(i));
    }
  }
  return result;
}

Samples scaled(const Samples& samples, double factor) {
  Samples result;
  for (const auto value : samples.values()) result.add(value * factor);
  return result;
}

// Columns "what is reached", "what the machine can", "share of that", of which those that the test
// is not about stay empty.
void add_share(std::vector<Cell>& row,
               const std::string& key,
               const std::string& title,
               const std::string& unit,
               const Samples& reached,
               const Samples& limit) {
  row.push_back({key + "_limit", fmt::format("{} {}", title, unit), scaled(limit, 1 / kGiga)});
  Cell share{key + "_percent", "% of " + title, {}};
  if (!limit.empty()) share.value = 100 * median_ratio(reached, limit);
  row.push_back(share);
}

// The embedding of a model in 4 bits has 8.
std::string weights_name(const EngineModelImpl& model) {
  const auto parameters = model.parameters();
  const auto any = [&](torch::Dtype dtype) {
    return std::any_of(parameters.begin(), parameters.end(),
                       [=](const auto& parameter) { return parameter.scalar_type() == dtype; });
  };
  for (const auto& module : model.modules(/*include_self=*/false)) {
    const auto* const matrix = dynamic_cast<const WeightMatrix*>(module.get());
    if (matrix != nullptr && matrix->blocks) return "gguf";
  }
  if (any(torch::kByte)) return "int4";
  if (any(torch::kChar)) return "int8";
  return std::string(dtype_to_string(parameters.front().scalar_type()));
}

std::vector<Cell> make_row(const BenchCase& test,
                           const Subject& subject,
                           const Measurements& measured) {
  const auto& options = subject.options;
  const auto bytes =
      scaled(measured.rate,
             test.is_prefill() ? 0 : bytes_per_token(test, *subject.model, subject.kv_dtype));
  const bool has_flops = test.is_prefill() || test.is_batch();
  const auto flops = scaled(measured.rate, has_flops ? flops_per_token(test, *subject.model) : 0);
  const auto giga = [](bool wanted, const Samples& samples) -> decltype(Cell::value) {
    if (!wanted) return std::monostate{};
    return samples.median() / kGiga;
  };
  std::vector<Cell> row{
      {"model", "model", subject.name},
      {"test", "test", test.name()},
      {"threads", "threads", int64_t{subject.threads}},
      {"numerics", "numerics", std::string(to_string(subject.model->numerics()))},
      {"weights", "weights", weights_name(*subject.model)},
      {"tokens_per_second", "tok/s", measured.rate},
      {"gb_per_second", "GB/s", giga(!test.is_prefill(), bytes)},
  };
  add_share(row, "stream", "stream", "GB/s", bytes, measured.stream);
  row.push_back({"gflop_per_second", "GFLOP/s", giga(has_flops, flops)});
  add_share(row, "fma", "FMA", "GFLOP/s", flops, measured.fma);
  add_share(row, "sgemm", "sgemm", "GFLOP/s", flops, measured.sgemm);
  Cell regions{"regions", "regions", {}};
  if (!test.is_prefill()) regions.value = measured.regions / test.tokens;
  row.push_back(regions);
  Cell cache{"kv_mb", "KV MB", {}};
  if (measured.kv_bytes) cache.value = static_cast<double>(*measured.kv_bytes) / kMega;
  row.push_back(cache);
  row.push_back({"peak_mb", "peak MB", static_cast<double>(measured.peak_bytes) / kMega});
  for (size_t i = 0; i < measured.reference.size(); ++i) {
    const auto& dtype = options.python_dtypes[i];
    row.push_back({fmt::format("gemma_pytorch_{}_tokens_per_second", dtype),
                   fmt::format("gemma_pytorch {} tok/s", dtype), measured.reference[i]});
    row.push_back({fmt::format("gemma_pytorch_{}_ratio", dtype), "ratio",
                   median_ratio(measured.rate, measured.reference[i])});
  }
  return row;
}

std::vector<BenchCase> tests_of(const BenchOptions& options) {
  std::vector<BenchCase> tests;
  const auto add = [&](BenchCase::Kind kind, int64_t tokens, int64_t depth, int64_t batch = 1) {
    if (tokens > 0) tests.push_back({kind, tokens, depth, batch});
  };
  for (const auto depth : options.depths) {
    for (const auto tokens : options.prompts) add(BenchCase::Kind::kPrefill, tokens, depth);
    for (const auto tokens : options.outputs) {
      for (const auto batch : options.batches) {
        add(BenchCase::Kind::kDecode, tokens, depth, batch);
        if (options.sampled) add(BenchCase::Kind::kSampledDecode, tokens, depth, batch);
      }
    }
  }
  return tests;
}

// Of a model that was loaded: without --variant, one was found then.
std::string model_name(const ModelOptions& options) {
  if (!options.variant.empty()) return options.variant;
  const auto source = WeightSource::open(options.ckpt);
  if (const auto detected = detect_variant(source)) return detected->variant;
  const auto family = family_of(source);
  return family ? std::string(family_row(*family).name) : "unknown";
}

EngineModel model_for(ModelOptions options, const std::string& numerics) {
  options.numerics = numerics;
  options.with_tokenizer = false;
  options.takes_recurrentgemma = true;
  if (!options.ckpt.empty()) return load_model(options);
  if (options.variant.empty()) {
    throw std::invalid_argument(
        "bench: there is no model; give --ckpt FILE, or --variant NAME for random weights");
  }
  return random_model(options);
}

// Of keys and values: exact numerics have that of the config.
torch::Dtype cache_dtype(const EngineModelImpl& model, torch::Dtype kv_dtype) {
  const auto* const gemma = dynamic_cast<const LanguageModelImpl*>(&model);
  const bool is_dense = gemma != nullptr && model.numerics() == Numerics::kExact;
  return is_dense ? gemma->config().get_dtype() : kv_dtype;
}

void bench(const BenchOptions& options) {
  const auto tests = tests_of(options);
  const auto kv_dtype = kv_dtype_of(options.model);
  const auto threads =
      options.threads.empty() ? std::vector{at::get_num_threads()} : options.threads;
  const auto numerics = options.numerics.empty() ? std::vector<std::string>{""} : options.numerics;
  BenchTable table(options.format);
  StreamProbe stream;
  std::unique_ptr<BenchReference> reference;
  for (const auto& name : numerics) {
    const auto model = model_for(options.model, name);
    if (!options.checkout.empty() && !reference) {
      const auto* const gemma = dynamic_cast<LanguageModelImpl*>(model.ptr().get());
      if (gemma == nullptr) {
        throw std::invalid_argument("--compare_python: gemma_pytorch has no RecurrentGemma");
      }
      reference =
          std::make_unique<BenchReference>(options.checkout, options.python, gemma->config(),
                                           options.model.ckpt, device_of(options.model));
    }
    const auto cache = cache_dtype(*model, kv_dtype);
    for (const auto count : threads) {
      at::set_num_threads(count);
      const Subject subject{options,        model_name(options.model), model, cache, count, &stream,
                            reference.get()};
      for (const auto& test : tests) table.add(make_row(test, subject, measure(test, subject)));
    }
  }
  table.finish();
}

template <typename T>
void add_list(CLI::App& command,
              const std::string& names,
              std::vector<T>& values,
              const std::string& text) {
  auto* option = command.add_option(names, values, text + "; a comma-separated list makes rows");
  option->delimiter(',');
  if (!values.empty()) option->capture_default_str();
}

}  // namespace

void add_bench(CLI::App& app) {
  const auto options = std::make_shared<BenchOptions>();
  auto* command =
      app.add_subcommand("bench", "Measure speed, beside what the machine can do at most.");
  add_model_options(*command, options->model);
  command->get_option("--ckpt")->required(false)->description(
      "Checkpoint; when omitted the --variant gets random weights");
  // Lists here.
  command->remove_option(command->get_option("--threads"));
  command->remove_option(command->get_option("--numerics"));
  add_list(*command, "-p," + both("n_prompt"), options->prompts, "Tokens of a prompt, 0 for none");
  add_list(*command, "-n," + both("n_gen"), options->outputs, "Tokens to generate, 0 for none");
  add_list(*command, "-d," + both("n_depth"), options->depths, "Tokens in the cache before");
  add_list(*command, "-b,--batch", options->batches, "Texts that are continued together");
  add_list(*command, "-t,--threads", options->threads,
           "CPU threads; LibTorch's choice when omitted");
  add_list(*command, "--numerics", options->numerics, "fast or exact");
  for (const auto* name : {"-p", "-n", "-d"}) {
    command->get_option(name)->check(CLI::Range(0, 10'000'000));
  }
  command->get_option("-b")->check(CLI::Range(1, 1'000));
  command->get_option("-t")->check(CLI::Range(1, 10'000));
  command->get_option("--numerics")->check(CLI::IsMember({"fast", "exact"}));
  command->add_option("-r,--repetitions", options->repetitions, "Times, after one unmeasured")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  command->add_flag("--sampled", options->sampled, "Generate with random draws as well");
  command->add_option("-o,--output", options->format, "md, csv or json")
      ->check(CLI::IsMember({"md", "csv", "json"}))
      ->capture_default_str();
  auto* compare =
      command->add_option(both("compare_python"), options->checkout,
                          "Checkout of gemma_pytorch, measured in turns with the model here");
  command->add_option("--python", options->python, "Interpreter for that, with torch in it")
      ->needs(compare)
      ->capture_default_str();
  add_list(*command, both("python_dtype"), options->python_dtypes, "Its dtypes: float32, bfloat16");
  command->get_option("--python_dtype")
      ->needs(compare)
      ->check(CLI::IsMember({"float32", "bfloat16", "float16"}));
  command->callback([options] { bench(*options); });
}

}  // namespace gemma::cli
