"""Texts that tell tokenizers apart: the fixed set that an engine is compared on before it writes anything."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator

# Pools of characters on which implementations were seen to disagree, or easily could.
_POOLS = (
    "的一是不了人我在有他这中大来上国個們說龍龘",  # common, traditional and rare ideographs
    "\u3400\u4db5\u9fa6\u9fff\uf900\ufa0e\U00020000\U0002a6d6\U0002a700\U0002b740\U0002ceb0\U00030000\U0003134a\U000323b0",
    "，。！？；：、“”‘’（）《》【】「」—…·～￥％＃＆＊＠",
    "abcxyzABCXYZßİıſﬀﬁŉǅÅÅΩΩσςΣéé",
    "0123456789０１２٣४৫²½Ⅷ①㊿",
    " \t\n\r\u000b\u000c\u0085\u00a0\u1680\u2002\u2003\u2009\u202f\u205f\u3000",
    "\u200b\u200c\u200d\u200e\u200f\u202a\u202e\u2060\u2066\ufeff\u00ad\u034f\u061c\u180e",
    "\u0300\u0301\u0308\u0327\u0345\u0591\u064b\u093c\u0e31\u20dd\u20e3\u3099\u309a\ufe0f\ufe20",
    "\x00\x01\x07\x08\x1b\x1f\x7f\x80\x9f\ufffd\ufffe\uffff\U0001fffe\U0010ffff\ue000\U000f0000",
    "😀👍🏽👩‍👩‍👧‍👦🇨🇳🏳️‍🌈❤️☎︎🧑🏿‍💻",
    "ㄅㄆあいアイがｶﾞ한국어각ᄀ",
    "АяЖёЇאבגשׁعربيلاकखक्षไทยกำԱֆႠა",
    "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~",
)
_HAND_WRITTEN = (
    "",
    " ",
    "  ",
    "\n",
    "\r\n\r\n",
    "\n \n\t\r \r\n  x",
    "a\r\nb\rc\nd\n\n\ne",
    "  leading and trailing  ",
    "it's IT'S we'll WE'LL they've I'd I'm you're can't 's 't '",
    "don’t ’s ’ll",
    "中华人民共和国专利法（2020年修正）第一条",
    "第1234567890123456789条，3.14159%，￥1,234.56",
    "电话:13800138000 身份证11010519491231002X 邮箱a.b@c.com https://例子.中国/路径?q=1#片段",
    "今天天气好\u3000\u3000明天也好 \u00a0后天",
    "Ｆｕｌｌ　ｗｉｄｔｈ　１２３",
    "e\u0301\u0323 vs \u00e9\u0323 vs \u1eb9\u0301",
    "Z̸̢̛͈a̶͇̔l̵̞͘g̷̪̈́o̸̙̍",
    "a\u200bb\u200dc\ufeffd\u00ade",
    "한국어 텍스트와 中文混排 and English、かな",
    "\u1112\u1161\u11ab 각",
    "ﷺ ﷽ ㍿ ㌔ Ǆ ŉ ﬃ",
    "ΌΔΟΣ Όδος ΣΑΣ σας",
    "İstanbul ISTANBUL ıstanbul",
    "🏴󠁧󠁢󠁥󠁮󠁧󠁿 👨‍👩‍👧‍👦👨‍👩‍👧‍👦 1️⃣#️⃣",
    "\x00a\x00中\x00",
    "\ufeffBOM first",
    "x" * 99 + " " + "x" * 100 + " " + "x" * 101 + " " + "x" * 5000,
    "中" * 5000,
    "9" * 3000,
    " " * 3000 + "a",
    "\n" * 3000,
    "\u0301" * 500,
    "a\u0301" * 500,
    "，" * 2000,
    "=" * 2000 + "-" * 2000,
    "😀" * 500,
    "ab" * 2000,
    "word " * 1000,
    "Supercalifragilisticexpialidocious" * 40,
    "'" * 200 + "''s" * 50,
    "</s><s><pad><unk><mask><|endoftext|><|im_start|>[CLS][SEP][MASK][PAD][UNK]",
    "[CLS] [SEP] [MASK] [PAD] [UNK] [unused1] ##ing ##的 ##",
    "<0x0A><|fim_prefix|> ▁ ĠĊ Ġthe",
)
_RANDOM_EACH = 16


def adversarial_texts(special_tokens: Iterable[str]) -> list[str]:
    """A few hundred texts, the same every time; ``special_tokens`` are spelt out in some of them."""
    return [*_HAND_WRITTEN, *_around(special_tokens), *_from_pools()]


def _around(tokens: Iterable[str]) -> Iterator[str]:
    for token in sorted(tokens)[:32]:
        yield token
        yield f"前{token}后 a {token} b{token}\n{token}{token}"
        yield f"{token[:-1]} {token[1:]} {token.upper()} {token.lower()}"


def _from_pools() -> Iterator[str]:
    draw = random.Random(20210101)  # noqa: S311  (a fixed sequence is what is wanted)
    for pool in _POOLS:
        yield pool
        yield " ".join(pool)
        for _ in range(_RANDOM_EACH):
            yield "".join(draw.choices(pool, k=draw.randint(1, 40)))
    everything = "".join(_POOLS)
    for _ in range(_RANDOM_EACH * 4):
        yield "".join(draw.choices(everything, k=draw.randint(1, 120)))
    for _ in range(_RANDOM_EACH * 2):  # any code point but the surrogates, which are no text
        points = (draw.choice((draw.randrange(0xD800), draw.randrange(0xE000, 0x110000))) for _ in range(40))
        yield "".join(map(chr, points))
