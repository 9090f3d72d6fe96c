#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>

#include <gemma/weights/weight_source.h>

// Networks that share little but their makers: what tells the files of one from those of another.
namespace gemma {

class Fields;

enum class Family {
  kGemma,  ///< Gemma 1, 2 and 3, text and images.
  kRecurrentGemma,
  kPaliGemma,
  kEmbeddingGemma,
};

/// A row of the table of families. What a family does not have is empty.
struct FamilyRow {
  Family family;
  std::string_view name;                          ///< For people: "RecurrentGemma".
  std::string_view taken_by;                      ///< What runs it, for messages.
  std::array<std::string_view, 5> model_types;    ///< Of config.json.
  std::string_view config_flag;                   ///< Is true there, where the type is another's.
  std::array<std::string_view, 3> architectures;  ///< Of GGUF.
  std::string_view tensor;  ///< Only this family has it (WeightSource's name).
};

const FamilyRow& family_row(Family family);

/// By the first of these that tells it: the architecture of a GGUF file, a tensor that only one
/// family has, the config.json in the file or in the directory, an embedding of Gemma's name. None
/// for a file that is of none of them. Throws std::runtime_error, naming the file, for a
/// config.json that is no JSON.
std::optional<Family> family_of(const WeightSource& source);

/// By the fields of a config.json.
std::optional<Family> family_of(const Fields& config);

/// Throws std::runtime_error, one line that names the file, its family, and what runs that, when
/// the weights are of another family than `want`. `who` takes that one alone.
void check_family(const WeightSource& source, Family want, std::string_view who);

/// "PaliGemma, which is for `gemma run` and gemma_libtorch.paligemma": how a message names another
/// family.
std::string other_family(Family family);

}  // namespace gemma
