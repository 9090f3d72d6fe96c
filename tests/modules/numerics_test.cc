#include <optional>
#include <stdexcept>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/testing.h"

#include <gemma/generate/causal_lm.h>
#include <gemma/ops/ops.h>

namespace gemma {
namespace {

using testing::contains;
using testing::message_of;
using testing::random_tensor;
using testing::tensors_close;
using testing::tensors_equal;
using testing::tiny_config;

// The numerics of a module and of all below it.
void expect_numerics(const Module& module, Numerics want) {
  EXPECT_EQ(module.numerics(), want);
  for (const auto& child : module.named_modules()) {
    if (const auto* ours = dynamic_cast<const Module*>(child.value().get())) {
      EXPECT_EQ(ours->numerics(), want) << child.key();
    }
  }
}

TEST(Numerics, HaveNames) {
  EXPECT_EQ(numerics_from_string("exact"), Numerics::kExact);
  EXPECT_EQ(numerics_from_string("fast"), Numerics::kFast);
  EXPECT_EQ(to_string(Numerics::kExact), "exact");
  EXPECT_EQ(to_string(Numerics::kFast), "fast");
}

TEST(Numerics, ListTheirNamesWhenOneIsUnknown) {
  const auto message = message_of<std::invalid_argument>([] { numerics_from_string("quick"); });
  EXPECT_TRUE(contains(message, "numerics 'quick' is unknown; valid numerics: exact, fast"));
}

TEST(Numerics, AreExactUnlessToldOtherwise) {
  const GemmaForCausalLM model(tiny_config(Architecture::kGemma3));
  expect_numerics(*model, Numerics::kExact);
}

TEST(Numerics, AreSetForAllModulesBelow) {
  GemmaForCausalLM model(tiny_config(Architecture::kGemma3));
  for (const auto numerics : {Numerics::kFast, Numerics::kExact}) {
    model->set_numerics(numerics);
    expect_numerics(*model, numerics);
  }
}

TEST(OpsFor, GivesTheSameImplementationEachTime) {
  EXPECT_EQ(&ops_for(Numerics::kExact, at::kCPU), &ops_for(Numerics::kExact, at::kCPU));
  EXPECT_EQ(ops_for(Numerics::kExact, at::kCPU).numerics(), Numerics::kExact);
}

// model.py: q.mul_(self.scaling), whose number Python does not round to bfloat16 beforehand.
TEST(Ops, RoundsScaledQueriesOnce) {
  const double scaling = 1.0 / 3;  // 0.333984375 in bfloat16.
  const auto queries = random_tensor({1, 4, 2, 24}, /*seed=*/1, at::kBFloat16);
  const auto want = (queries.to(at::kFloat) * scaling).to(at::kBFloat16);
  const auto cache = random_tensor({1, 4, 2, 24}, /*seed=*/2, at::kBFloat16);
  Ops().attend(queries, {cache, cache}, at::zeros({1, 1, 4, 4}), {scaling, std::nullopt});
  EXPECT_TRUE(tensors_equal(queries, want));  // They were scaled in place.
}

TEST(Softcap, StaysWithinTheCap) {
  const auto x = at::tensor({-1e30F, -100.0F, 100.0F, 1e30F});
  EXPECT_TRUE(tensors_equal(softcap(x, /*cap=*/3.0), at::tensor({-3.0F, -3.0F, 3.0F, 3.0F})));
}

TEST(Softcap, HardlyChangesWhatIsSmall) {
  const auto x = at::tensor({-0.01F, 0.0F, 0.01F});
  EXPECT_TRUE(tensors_close(softcap(x, /*cap=*/50.0), x));
}

TEST(Softcap, IsTheCapTimesTheTanhOfTheShare) {
  const auto x = random_tensor({5, 7}, /*seed=*/1) * 10;
  EXPECT_TRUE(tensors_close(softcap(x, /*cap=*/3.0), 3 * at::tanh(x.to(at::kDouble) / 3)));
}

TEST(Softcap, KeepsTheDtype) {
  const auto x = random_tensor({5, 7}, /*seed=*/1, at::kBFloat16);
  EXPECT_EQ(softcap(x, /*cap=*/3.0).scalar_type(), at::kBFloat16);
}

}  // namespace
}  // namespace gemma
