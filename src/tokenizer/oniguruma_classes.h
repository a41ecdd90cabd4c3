// What Oniguruma's character classes hold, as PCRE2 writes it. For oniguruma.cc only.
#pragma once

#include <string_view>
#include <utility>

namespace llorch::tok {

// Members of a class as PCRE2 writes them between brackets.
inline constexpr std::string_view kSpace =
    R"(\x{9}-\x{d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
inline constexpr std::string_view kNotSpace =
    R"(\x{0}-\x{8}\x{e}-\x{1f}\x{21}-\x{84}\x{86}-\x{9f}\x{a1}-\x{167f}\x{1681}-\x{1fff})"
    R"(\x{200b}-\x{2027}\x{202a}-\x{202e}\x{2030}-\x{205e}\x{2060}-\x{2fff}\x{3001}-\x{10ffff})";
inline constexpr std::string_view kWord = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc})";
// Outside brackets Oniguruma takes these Latin-1 numbers for word characters too.
inline constexpr std::string_view kLatinWord = R"(\x{b2}\x{b3}\x{b9}\x{bc}-\x{be})";
inline constexpr std::string_view kHex = "0-9A-Fa-f";
// With what Unicode has changed since PCRE2's tables.
inline constexpr std::string_view kAlphabetic =
    R"(\p{Alphabetic}\x{363}-\x{36f}\x{c04}\x{f82}\x{f83}\x{1dd3}-\x{1de6}\x{11080}\x{11081})";
inline constexpr std::string_view kAlnum =
    R"(\p{Alphabetic}\x{363}-\x{36f}\x{c04}\x{f82}\x{f83}\x{1dd3}-\x{1de6}\x{11080}\x{11081}\p{Nd})";
inline constexpr std::string_view kLowercase = R"(\p{Lowercase}\x{10fc}\x{a7f2}-\x{a7f4}\x{ab69})";
inline constexpr std::string_view kSpacingMark = R"(\p{Mc}\x{1171e})";
inline constexpr std::string_view kNonspacingMark = R"((?:(?!\x{1171e})\p{Mn}))";
inline constexpr std::string_view kNotNonspacingMark = R"(\P{Mn}\x{1171e})";

using Name = std::pair<std::string_view, std::string_view>;
// Loosely written names of general categories and of the properties that have several members.
inline constexpr Name kProperties[] = {
    {"letter", "\\p{L}"},
    {"casedletter", "\\p{L&}"},
    {"lc", "\\p{L&}"},
    {"uppercaseletter", "\\p{Lu}"},
    {"lowercaseletter", "\\p{Ll}"},
    {"titlecaseletter", "\\p{Lt}"},
    {"modifierletter", "\\p{Lm}"},
    {"otherletter", "\\p{Lo}"},
    {"mark", "\\p{M}"},
    {"spacingmark", kSpacingMark},
    {"mc", kSpacingMark},
    {"enclosingmark", "\\p{Me}"},
    {"number", "\\p{N}"},
    {"decimalnumber", "\\p{Nd}"},
    {"letternumber", "\\p{Nl}"},
    {"othernumber", "\\p{No}"},
    {"punctuation", "\\p{P}"},
    {"connectorpunctuation", "\\p{Pc}"},
    {"dashpunctuation", "\\p{Pd}"},
    {"openpunctuation", "\\p{Ps}"},
    {"closepunctuation", "\\p{Pe}"},
    {"initialpunctuation", "\\p{Pi}"},
    {"finalpunctuation", "\\p{Pf}"},
    {"otherpunctuation", "\\p{Po}"},
    {"symbol", "\\p{S}"},
    {"mathsymbol", "\\p{Sm}"},
    {"currencysymbol", "\\p{Sc}"},
    {"modifiersymbol", "\\p{Sk}"},
    {"othersymbol", "\\p{So}"},
    {"separator", "\\p{Z}"},
    {"spaceseparator", "\\p{Zs}"},
    {"lineseparator", "\\p{Zl}"},
    {"paragraphseparator", "\\p{Zp}"},
    {"other", "\\p{C}"},
    {"control", "\\p{Cc}"},
    {"format", "\\p{Cf}"},
    {"privateuse", "\\p{Co}"},
    {"alphabetic", kAlphabetic},
    {"alpha", kAlphabetic},
    {"alnum", kAlnum},
    {"uppercase", "\\p{Uppercase}"},
    {"upper", "\\p{Uppercase}"},
    {"lowercase", kLowercase},
    {"lower", kLowercase},
    {"digit", "\\p{Nd}"},
    {"punct", "\\p{P}"},
    {"cntrl", "\\p{Cc}"},
    {"blank", "\\p{Zs}\\x{9}"},
    {"space", kSpace},
    {"whitespace", kSpace},
    {"xdigit", kHex},
    {"any", "\\x{0}-\\x{10ffff}"},
    {"ascii", "\\x{0}-\\x{7f}"},
    {"emoji", "\\p{Emoji}"},
    {"extendedpictographic", "\\p{Extended_Pictographic}"},
};
inline constexpr std::string_view kCategories[] = {
    "c",  "cc", "cf", "cn", "co", "l",  "ll", "lm", "lo", "lt", "lu", "m",
    "me", "n",  "nd", "nl", "no", "p",  "pc", "pd", "pe", "pf", "pi", "po",
    "ps", "s",  "sc", "sk", "sm", "so", "z",  "zl", "zp", "zs"};

}  // namespace llorch::tok
