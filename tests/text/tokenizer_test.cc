#include <cstdint>
#include <ostream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "tests/bad_files.h"
#include "tests/testing.h"

#include <gemma/checkpoint/errors.h>
#include <gemma/text/tokenizer.h>

namespace gemma {
namespace {

using testing::contains;
using testing::data_path;
using testing::message_of;
using testing::TemporaryDirectory;

constexpr int64_t kEos = 1;
constexpr int64_t kBos = 2;

Tokenizer tiny_tokenizer() { return Tokenizer(data_path("tiny.model").string()); }

std::vector<std::string> pieces_of(const Tokenizer& tokenizer, std::string_view text) {
  std::vector<std::string> pieces;
  for (const auto id : tokenizer.encode(text, /*bos=*/false)) {
    pieces.push_back(tokenizer.id_to_piece(id));
  }
  return pieces;
}

TEST(Tokenizer, KnowsTheIdsOfItsModel) {
  const auto tokenizer = tiny_tokenizer();
  EXPECT_EQ(tokenizer.n_words(), 451);
  EXPECT_EQ(tokenizer.pad_id(), 0);
  EXPECT_EQ(tokenizer.eos_id(), kEos);
  EXPECT_EQ(tokenizer.bos_id(), kBos);
}

TEST(Tokenizer, HasTheReferencesImageIdsWhateverTheModel) {
  const auto tokenizer = tiny_tokenizer();
  EXPECT_EQ(tokenizer.boi_id(), 255'999);
  EXPECT_EQ(tokenizer.eoi_id(), 256'000);
  EXPECT_EQ(tokenizer.image_token_placeholder_id(), tokenizer.pad_id());
}

TEST(Tokenizer, CutsTextIntoPieces) {
  EXPECT_EQ(pieces_of(tiny_tokenizer(), "The ferry leaves"),
            (std::vector<std::string>{"The", "▁f", "err", "y", "▁lea", "v", "es"}));
}

TEST(Tokenizer, PutsBosAndEosAroundTheTextAsAskedTo) {
  const auto tokenizer = tiny_tokenizer();
  const auto plain = tokenizer.encode("The ferry", /*bos=*/false, /*eos=*/false);
  const auto with = [&plain](std::vector<int64_t> ids, const std::vector<int64_t>& after) {
    ids.insert(ids.end(), plain.begin(), plain.end());
    ids.insert(ids.end(), after.begin(), after.end());
    return ids;
  };
  EXPECT_EQ(tokenizer.encode("The ferry"), with({kBos}, {}));
  EXPECT_EQ(tokenizer.encode("The ferry", /*bos=*/true, /*eos=*/true), with({kBos}, {kEos}));
  EXPECT_EQ(tokenizer.encode("The ferry", /*bos=*/false, /*eos=*/true), with({}, {kEos}));
}

TEST(Tokenizer, EncodesNoTextAsBosAlone) {
  const auto tokenizer = tiny_tokenizer();
  EXPECT_EQ(tokenizer.encode(""), std::vector<int64_t>{kBos});
  EXPECT_EQ(tokenizer.encode("", /*bos=*/false), std::vector<int64_t>());
  EXPECT_EQ(tokenizer.decode({}), "");
}

struct TextRow {
  std::string name;
  std::string text;
};
std::ostream& operator<<(std::ostream& out, const TextRow& row) { return out << row.name; }

class RoundTrip : public ::testing::TestWithParam<TextRow> {};

TEST_P(RoundTrip, GivesTheTextBack) {
  const auto tokenizer = tiny_tokenizer();
  EXPECT_EQ(tokenizer.decode(tokenizer.encode(GetParam().text)), GetParam().text);
  EXPECT_EQ(tokenizer.decode(tokenizer.encode(GetParam().text, /*bos=*/false, /*eos=*/true)),
            GetParam().text);
}

INSTANTIATE_TEST_SUITE_P(
    Tokenizer,
    RoundTrip,
    ::testing::Values(TextRow{"Words", "The ferry leaves the harbour at seven."},
                      TextRow{"Blanks", "  two  before,   three inside, one after "},
                      TextRow{"Lines", "one\n\ntwo\n\tthree\r\n"},
                      TextRow{"Accents", "Le café du port, El niño, Küste"},
                      TextRow{"NotInTheVocabulary", "漢字 и кириллица"},
                      TextRow{"Emoji", "👩‍👩‍👧"},
                      TextRow{"Controls", std::string("a\0b\x7f\x01", 5)},
                      TextRow{"Markers", "<start_of_turn>user\nhello<end_of_turn>"},
                      TextRow{"Long", std::string(10'000, 'a')}),
    [](const auto& row) { return row.param.name; });

TEST(Tokenizer, ReadsMarkersAsOnePiece) {
  EXPECT_EQ(pieces_of(tiny_tokenizer(), "<end_of_turn>\n"),
            (std::vector<std::string>{"<end_of_turn>", "\n"}));
}

// Text cannot end a generation, nor begin a second one.
TEST(Tokenizer, DoesNotReadControlTokensFromText) {
  const auto tokenizer = tiny_tokenizer();
  for (const auto* const text : {"<s>", "</s>", "<pad>"}) {
    SCOPED_TRACE(text);
    EXPECT_GT(tokenizer.encode(text, /*bos=*/false).size(), 1U);
  }
}

TEST(Tokenizer, ReadsBytesThatAreNotUtf8AsReplacementCharacters) {
  const auto tokenizer = tiny_tokenizer();
  const std::string replacement = "\xef\xbf\xbd";
  EXPECT_EQ(tokenizer.decode(tokenizer.encode("a\xff\xfe"
                                              "b")),
            "a" + replacement + replacement + "b");
  EXPECT_EQ(tokenizer.decode(tokenizer.encode("\xc3")), replacement);
}

TEST(Tokenizer, DecodesBytesThatDoNotJoinToUtf8AsReplacementCharacters) {
  const auto tokenizer = tiny_tokenizer();
  const auto e6 = tokenizer.piece_to_id("<0xE6>");
  const auto bc = tokenizer.piece_to_id("<0xBC>");
  const auto a2 = tokenizer.piece_to_id("<0xA2>");
  EXPECT_EQ(tokenizer.decode({e6, bc, a2}), "漢");
  EXPECT_EQ(tokenizer.decode({e6, bc}), "\xef\xbf\xbd\xef\xbf\xbd");
}

TEST(Tokenizer, DecodesControlTokensAsNothing) {
  const auto tokenizer = tiny_tokenizer();
  auto ids = tokenizer.encode("The ferry", /*bos=*/true, /*eos=*/true);
  ids.push_back(tokenizer.pad_id());
  EXPECT_EQ(tokenizer.decode(ids), "The ferry");
}

TEST(Tokenizer, GivesIdsAndPiecesOfEachOther) {
  const auto tokenizer = tiny_tokenizer();
  for (int64_t id = 0; id < tokenizer.n_words(); ++id) {
    EXPECT_EQ(tokenizer.piece_to_id(tokenizer.id_to_piece(id)), id);
  }
  EXPECT_EQ(tokenizer.id_to_piece(tokenizer.piece_to_id("no such piece")), "<unk>");
}

TEST(Tokenizer, RefusesIdsOutsideTheVocabulary) {
  const auto tokenizer = tiny_tokenizer();
  for (const int64_t id : {int64_t{-1}, int64_t{451}, int64_t{1} << 32, INT64_MIN, INT64_MAX}) {
    SCOPED_TRACE(id);
    EXPECT_THROW(tokenizer.decode({kBos, id}), std::out_of_range);
    EXPECT_THROW(tokenizer.id_to_piece(id), std::out_of_range);
  }
  EXPECT_TRUE(contains(message_of<std::out_of_range>([&] { tokenizer.decode({451}); }),
                       "id 451 is outside the vocabulary of 451 pieces"));
}

TEST(Tokenizer, TakesOtherPiecesAndKeepsItsWays) {
  const auto tokenizer = tiny_tokenizer();
  auto pieces = tokenizer.pieces();
  EXPECT_EQ(tokenizer.with_pieces(pieces).pieces(), pieces);
  pieces.push_back({.text = "<tool▁call>", .score = 0, .type = PieceType::kUserDefined});
  const auto more = tokenizer.with_pieces(pieces);
  EXPECT_EQ(more.n_words(), tokenizer.n_words() + 1);
  EXPECT_EQ(pieces_of(more, "a<tool call>b"), (std::vector<std::string>{"a", "<tool▁call>", "b"}));
  EXPECT_EQ(more.decode({tokenizer.n_words()}), "<tool call>");
  EXPECT_EQ(more.encode("The ferry leaves"), tokenizer.encode("The ferry leaves"));
  pieces.push_back(pieces.back());
  EXPECT_THROW(tokenizer.with_pieces(pieces), std::invalid_argument);
}

TEST(Vocabulary, ByteOfPieceIsThatOfByteTokensOnly) {
  EXPECT_EQ(byte_of_piece("<0x00>"), 0);
  EXPECT_EQ(byte_of_piece("<0xFF>"), 255);
  for (const auto* const text : {"<0x0>", "<0x0G>", "<0x+1>", "0x0A", "<0x0A>>", ""}) {
    EXPECT_EQ(byte_of_piece(text), std::nullopt) << text;
  }
}

TEST(Tokenizer, CanBeMoved) {
  auto first = tiny_tokenizer();
  const auto want = first.encode("The ferry");
  const Tokenizer second = std::move(first);
  EXPECT_EQ(second.encode("The ferry"), want);
}

TEST(Tokenizer, ThrowsNamingThePathWhenTheModelIsMissing) {
  const TemporaryDirectory directory;
  const auto path = (directory.path() / "tokenizer.model").string();
  const auto message = message_of<FileNotFound>([&] { Tokenizer{path}; });
  EXPECT_TRUE(contains(message, path));
  EXPECT_TRUE(contains(message, "no such file"));
}

TEST(Tokenizer, RefusesADirectory) {
  const TemporaryDirectory directory;
  const auto message =
      message_of<std::runtime_error>([&] { Tokenizer{directory.path().string()}; });
  EXPECT_TRUE(contains(message, directory.path().string() + ": not a file"));
}

TEST(Tokenizer, RefusesFilesThatAreNotSentencePieceModels) {
  const TemporaryDirectory directory;
  for (const auto& bytes :
       {std::string(), std::string("{\"model\": {}}"), std::string("\n\x0e\n\x05<pad"),
        testing::small_torch_file(), std::string(1000, '\xff')}) {
    const auto path = directory.write("tokenizer.model", bytes).string();
    const auto message = message_of<std::runtime_error>([&] { Tokenizer{path}; });
    EXPECT_TRUE(contains(message, path + ": not a SentencePiece model"));
  }
}

}  // namespace
}  // namespace gemma
