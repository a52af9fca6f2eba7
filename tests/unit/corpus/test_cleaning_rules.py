"""Every rule by itself, on dirt as it is found in WuDao and on what looks like dirt and is none."""

from __future__ import annotations

import pytest
from cleaning_dirt import LONG, SENTENCE, clean, cleaned, document, reason

from lmbatch.config import CleaningConfig
from lmbatch.corpus import Document, Rejected, build_cleaner
from lmbatch.corpus.cleaning.personal import is_identity_number

# ── characters ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("零\u200b宽\ufeff字\u200c符\u2060", "零宽字符"),
        ("响\x07铃\x1b[0m和\x7f删除\x9f", "响铃[0m和删除"),
        ("软\u00ad连字符，方向\u202e标记\u200f，替换\ufffd字符", "软连字符，方向标记，替换字符"),
        ("留下\t制表和\n换行", "留下\t制表和\n换行"),
        ("宇航员👩‍🚀和水\u200d印", "宇航员👩‍🚀和水印"),
        ("家庭👨‍👩‍👧，红心❤️‍🔥", "家庭👨‍👩‍👧，红心❤️‍🔥"),
    ],
)
def test_invisible_characters(text: str, kept: str) -> None:
    assert cleaned(text, control=True) == kept


@pytest.mark.parametrize(
    ("form", "text", "normal"),
    [
        ("NFC", "cafe\u0301，：（）１２①㈱ﬁ", "café，：（）１２①㈱ﬁ"),
        ("NFKC", "cafe\u0301，：（）１２①㈱ﬁ", "café,:()121(株)fi"),
        ("NFC", "\uf9ba", "了"),
        ("none", "cafe\u0301", "cafe\u0301"),
    ],
)
def test_normal_forms(form: str, text: str, normal: str) -> None:
    assert cleaned(text, unicode=form) == normal


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("第一条\u3000为了", "第一条 为了"),
        ("\u3000\u3000段首缩进\r\n\u3000\u3000第二段 \r第三段", "段首缩进\n第二段\n第三段"),
        ("展平 的 \xa0 换行\t\t与制表", "展平 的 换行 与制表"),
        ("一\n\n\n \n\n二\n\n三", "一\n\n二\n\n三"),
        ("一\u2028二\x85三\x0b四\x0c五", "一\n二\n三\n四\n五"),
    ],
)
def test_white_space(text: str, plain: str) -> None:
    assert cleaned(text, whitespace=True) == plain


@pytest.mark.parametrize(
    ("text", "wide"),
    [
        ("你好,世界", "你好，世界"),
        ("他说:对不对?对!好;行", "他说：对不对？对！好；行"),
        ("逗号后, 有空格", "逗号后，有空格"),
        ("比分3:2,共1,000人", "比分3:2,共1,000人"),
        ("GPT-2,你好 hello, world", "GPT-2,你好 hello, world"),
        ("甲,乙,丙", "甲，乙，丙"),
        ("𠮷,野家", "𠮷，野家"),
    ],
)
def test_ascii_punctuation_between_chinese_characters(text: str, wide: str) -> None:
    assert cleaned(text, punctuation=True) == wide


def test_traditional_to_simplified_by_phrase() -> None:
    assert cleaned("乾隆皇帝頭髮乾燥，瞭解後面的麵包", simplify=True) == "乾隆皇帝头发干燥，了解后面的面包"


# ── markup ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("<p>第一段</p><p class='x'>第二段</P>", "\n第一段\n\n第二段\n"),
        ("一<br/>二<BR>三", "一\n二\n三"),
        ("粗<b>体</b>和<a href='http://x.cn?a=1&b=2'>链接</a>", "粗体和链接"),
        ("<td>甲</td><td>乙</td>", " 甲  乙 "),
        ("前<!-- 广告 -->后", "前后"),
        ("前<script type='text/javascript'>if(a<b){alert('<b>x</b>')}</script>后", "前后"),
        ("前<style>p{color:red}</style>后<script>没有结尾", "前后没有结尾"),
        ("&lt;p&gt;转义两次&amp;nbsp;的&lt;/p&gt;", "\n转义两次\xa0的\n"),
        ("&copy;2021 &hellip; &#20013;&#x56FD; &mdash;", "©2021 … 中国 —"),
        ("<scr<script>ipt>嵌套", "嵌套"),
    ],
)
def test_html_remains(text: str, left: str) -> None:
    assert cleaned(text, html=True) == left


@pytest.mark.parametrize(
    "text",
    [
        "若 a < b 且 b > c",
        "vector<int> 与 <你好>",
        "<<红楼梦>>第一回",
        "AT&T; R&D &unknown; &copy 2021 ?a=1&copy=2",
        "心<3 箭头->",
        "<email@example.com>",
    ],
)
def test_what_is_no_html_stays(text: str) -> None:
    assert cleaned(text, html=True) == text


@pytest.mark.parametrize(
    ("entity", "character"),
    [("&#0;", ""), ("&#27;", ""), ("&#127;", ""), ("&#xD800;", ""), ("&#x110000;", ""), ("&#129;", ""),
     ("&#150;", "–"), ("&#10;", "\n")],
)  # fmt: skip
def test_entities_of_characters_that_cannot_be(entity: str, character: str) -> None:
    assert cleaned(f"中{entity}国", html=True) == f"中{character}国"


def test_an_entity_escaped_again_and_again_is_dropped_not_followed_for_ever() -> None:
    assert reason("&" + "amp;" * 1000 + "lt;", html=True) == "unsettled"


# ── title ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("title", "text", "left"),
    [
        ("专利法", "专利法\n第一条", "第一条"),
        ("专利法", "专利法 第一条", "第一条"),
        ("专利法", "专利法：第一条", "第一条"),
        ("专利法", "专利法专利法 第一条", "第一条"),
        ("专利法", "专利法 专利法 专利法 第一条", "第一条"),
        ("怎么办？", "怎么办？先看第一条", "先看第一条"),
        ("我的母亲", "我的母亲是教师", "我的母亲是教师"),
        ("我的母亲", "我的母亲，一位教师", "我的母亲，一位教师"),
        ("专利法", "第一条 专利法", "第一条 专利法"),
        ("专利法", "专利法", "专利法"),
        ("", "专利法", "专利法"),
        (" 专利法 ", "专利法 第一条", "第一条"),
    ],
)
def test_a_title_at_the_head(title: str, text: str, left: str) -> None:
    assert with_title(text, title) == left


def with_title(text: str, title: str, **keys: object) -> str:
    result = build_cleaner(CleaningConfig(title=True, **keys))(document(text, title))
    assert isinstance(result, Document)
    return result.text


def test_a_title_is_compared_after_the_same_cleaning() -> None:
    text, title = "<h1>甲,乙&amp;丙</h1>第一条", "甲,乙&amp;丙"
    assert with_title(text, title, html=True, punctuation=True, whitespace=True) == "第一条"


# ── personal data ────────────────────────────────────────────────────────────────────────────────────────────────────

RIGHT = ["11010519491231002X", "11010519491231002x", "440524188001010014"]


@pytest.mark.parametrize("number", RIGHT)
def test_identity_numbers_with_the_right_checksum(number: str) -> None:
    assert is_identity_number(number)
    assert cleaned(f"身份证号{number}，汉族", identity_numbers=True) == "身份证号[身份证号]，汉族"


@pytest.mark.parametrize(
    "number",
    [
        "110105194912310021",  # checksum
        "440524188001010015",
        "110105194913310025",  # month 13
        "990105194912310022",  # no such province
        "211010519491231002X",  # one digit more
        "11010519491231002X8",
        "a11010519491231002X",
        "110105491231002",  # the old 15 digits have no checksum
    ],
)
def test_other_long_numbers_are_no_identity_numbers(number: str) -> None:
    assert cleaned(f"编号{number}。", identity_numbers=True) == f"编号{number}。"


def test_every_wrong_check_character_is_told_from_the_right_one() -> None:
    right = [check for check in "0123456789X" if is_identity_number("11010519491231002" + check)]
    assert right == ["X"]


@pytest.mark.parametrize(
    "number",
    ["13812345678", "138-1234-5678", "138 1234 5678", "+8613812345678", "+86 138-1234-5678", "0086 13812345678",
     "8613812345678", "010-62345678", "0755-8234567", "(021)62345678", "（021）62345678", "400-820-8820", "400-8208820",
     "800-820-8820"],
)  # fmt: skip
def test_phone_numbers(number: str) -> None:
    assert cleaned(f"联系电话{number}，王先生", phone_numbers=True) == "联系电话[电话]，王先生"


@pytest.mark.parametrize(
    "number",
    [
        "1381234567",  # 10 digits
        "138123456789",  # 12 digits
        "12812345678",  # no such prefix
        "11010519491231002X",
        "978-7-108-01234-5",  # ISBN
        "9787108012345",
        "1600000000000",  # milliseconds
        "2021-01-01",
        "20210101-20211231",
        "3.13812345678",
        "13812345678.50",
        "13812345678元",
        "6222021381234567890",  # bank card
        "f13812345678",
        "2010-62345678",
        "1949-10-01 1950-10-01",
    ],
)
def test_other_numbers_are_no_phone_numbers(number: str) -> None:
    assert cleaned(f"编号{number}。", phone_numbers=True) == f"编号{number}。"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("见http://www.example.com/a?b=1&c=%20d。下文", "见[网址]。下文"),
        ("(https://example.com/a_(b).html)", "([网址])"),
        ("访问www.example.com.cn了解", "访问[网址]了解"),
        ("HTTPS://EXAMPLE.COM", "[网址]"),
        ("awww.x 和 wwwwww", "awww.x 和 wwwwww"),
    ],
)
def test_urls(text: str, left: str) -> None:
    assert cleaned(text, urls=True) == left


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("邮箱zhang.san+a@mail.example.com.cn。", "邮箱[邮箱]。"),
        ("13812345678@qq.com", "[邮箱]"),
        ("微博@张三 a@b @ c.com", "微博@张三 a@b @ c.com"),
    ],
)
def test_emails(text: str, left: str) -> None:
    assert cleaned(text, emails=True, phone_numbers=True) == left


def test_long_runs_cost_no_more_than_their_length() -> None:
    hostile = ["a" * 200_000, "<" * 200_000, "<!--" * 50_000, "&" * 200_000, "<b " * 60_000, "1" * 200_000,
               "a." * 100_000 + "@", "www." * 50_000, "标题" * 100_000, " " * 200_000, "<script>" * 20_000]  # fmt: skip
    for text in hostile:
        clean(text, "zh_web", of_title="标题")


# ── filters ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "keys", "expected"),
    [
        ("字" * 19, {"min_characters": 20}, "too_short"),
        ("字" * 20, {"min_characters": 20}, "kept"),
        ("字" * 21, {"max_characters": 20}, "too_long"),
        ("字" * 20, {"max_characters": 20}, "kept"),
        ("汉字 ab", {"min_chinese_share": 0.5}, "kept"),
        ("汉字abc", {"min_chinese_share": 0.5}, "too_little_chinese"),
        ("𠮷〇ab", {"min_chinese_share": 0.5}, "kept"),
        ("★☆汉字", {"max_symbol_share": 0.5}, "kept"),
        ("★☆#汉字", {"max_symbol_share": 0.5}, "too_many_symbols"),
        ("“你好”，《书》！（一）", {"max_symbol_share": 0.0}, "kept"),
        ("甲\n乙\n甲\n\n丙", {"max_duplicate_line_share": 0.25}, "kept"),
        ("甲\n乙\n 甲 \n\n甲", {"max_duplicate_line_share": 0.25}, "repeated_lines"),
        ("点击查看" * 10, {"max_ngram_share": 0.2}, "repeated_ngrams"),
        (LONG, {"max_ngram_share": 0.2}, "kept"),
        ("哈哈", {"max_ngram_share": 0.0}, "kept"),
    ],
)
def test_filters(text: str, keys: dict[str, float], expected: str) -> None:
    assert reason(text, **keys) == expected


def test_the_share_of_an_ngram_is_of_the_visible_characters() -> None:
    text = "天下大势" * 3 + "分久必合合久必分话说周末七国争并"  # 3 × 4 of 28 characters
    assert reason(text, max_ngram_share=12 / 28) == "kept"
    assert reason(text, max_ngram_share=12 / 28 - 0.01) == "repeated_ngrams"
    assert reason(" \n".join(text), max_ngram_share=12 / 28) == "kept"


def test_language() -> None:
    assert reason(SENTENCE, languages=("zh",)) == "kept"
    assert reason("This is a sentence in plain English.", languages=("zh",)) == "other_language"
    assert reason("This is a sentence in plain English.", languages=("zh", "en")) == "kept"


# ── the whole ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_changed_document_names_the_rules_in_their_order() -> None:
    result = clean(f"<p>{LONG}电话13812345678&nbsp;&nbsp;好</p>", "zh_web")
    assert isinstance(result, Document)
    assert result.text == f"{LONG}电话[电话] 好"
    assert result.changed == ("html", "whitespace", "phone_numbers")


def test_nothing_left_is_a_reason_of_its_own() -> None:
    result = clean("<br/>&nbsp;", "light")
    assert isinstance(result, Rejected)
    assert (result.reason, result.dropped, result.length) == ("empty_after_cleaning", True, 11)


def test_a_dropped_document_says_where_it_was_and_why() -> None:
    result = clean("短", "zh_web")
    assert result == Rejected("part.json", 0, 3, "too_short", "1 characters", "短", dropped=True)


def test_wudao_dirt_all_at_once() -> None:
    dirty = (
        "专利法 第一条\u3000为了保护专利权人的合法权益,鼓励发明创造\u200b,推动应用&nbsp;&nbsp;。<br>联系人:张三 "
        "身份证11010519491231002X 手机13812345678 邮箱a@b.cn 网址http://b.cn/x "
        "订单号202101011234567 ISBN 978-7-108-01234-5"
    )
    assert with_title(dirty, "专利法", preset="zh_web") == (
        "第一条 为了保护专利权人的合法权益，鼓励发明创造，推动应用 。\n联系人：张三 "
        "身份证[身份证号] 手机[电话] 邮箱[邮箱] 网址[网址] "
        "订单号202101011234567 ISBN 978-7-108-01234-5"
    )
