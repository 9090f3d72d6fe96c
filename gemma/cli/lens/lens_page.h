#pragma once

#include <string>

#include <gemma/cli/lens/lens_table.h>

namespace gemma::cli {

/// A page of HTML that needs nothing else: the table, the likeliest tokens of a cell, and where the
/// heads of its layer look from there. `table` has patterns.
std::string lens_page(const LensTable& table, const Tokenizer& tokenizer);

/// The text of page.html, with "{{data}}" where the page has its data.
const char* lens_page_text();

}  // namespace gemma::cli
