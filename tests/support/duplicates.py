"""A Chinese corpus with known duplicates: documents of the Thousand Character Classic's phrases, copies and edits."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from lmbatch.config import PreprocessConfig
from lmbatch.shards import read_rows
from lmbatch.store import Manifest, Store
from support.wudao import config_for

# 周兴嗣, 千字文 (6th century): hardly a character twice, so texts of shuffled phrases share few runs of five.
CLASSIC = (
    "天地玄黄宇宙洪荒日月盈昃辰宿列张寒来暑往秋收冬藏闰余成岁律吕调阳云腾致雨露结为霜金生丽水玉出昆冈剑号巨阙珠称夜光"
    "果珍李柰菜重芥姜海咸河淡鳞潜羽翔龙师火帝鸟官人皇始制文字乃服衣裳推位让国有虞陶唐吊民伐罪周发殷汤坐朝问道垂拱平章"
    "爱育黎首臣伏戎羌遐迩一体率宾归王鸣凤在竹白驹食场化被草木赖及万方盖此身发四大五常恭惟鞠养岂敢毁伤女慕贞洁男效才良"
    "知过必改得能莫忘罔谈彼短靡恃己长信使可覆器欲难量墨悲丝染诗赞羔羊景行维贤克念作圣德建名立形端表正空谷传声虚堂习听"
    "祸因恶积福缘善庆尺璧非宝寸阴是竞资父事君曰严与敬孝当竭力忠则尽命临深履薄夙兴温凊似兰斯馨如松之盛川流不息渊澄取映"
)
PHRASES = [CLASSIC[start : start + 4] for start in range(0, len(CLASSIC), 4)]


def original(number: int, phrases: int = 60) -> str:
    """Document ``number``: unlike any other."""
    chosen = random.Random(number).sample(PHRASES, phrases)
    return "，".join(chosen) + "。"


def edited(text: str, seed: int, places: int = 3) -> str:
    """The text with a few characters replaced."""
    rng, characters = random.Random(seed), list(text)
    for place in rng.sample(range(len(characters)), places):
        characters[place] = "某"
    return "".join(characters)


def disguised(text: str) -> str:
    """The same text in other clothes: half-width punctuation, white space, full-width letters."""
    return "　" + text.replace("，", ", ").replace("。", " 。\n")


def record(identifier: str, text: str) -> dict[str, Any]:
    """One WuDao record."""
    return {"id": 0, "uniqueKey": identifier, "titleUkey": "", "dataType": "", "title": "", "content": text}


def write_duplicates(folder: Path, originals: int = 60) -> dict[str, set[str]]:
    """Write two files; the identifiers of originals, copies and near-copies, which all come after their original.

    Every fifth document has a copy and every seventh an edited one; some in the same file, some in the next.
    """
    folder.mkdir(parents=True, exist_ok=True)
    first = [record(f"original-{number}", original(number)) for number in range(originals)]
    second = [record(f"late-{number}", original(originals + number)) for number in range(5)]
    copies = [record(f"copy-{number}", disguised(original(number))) for number in range(0, originals, 5)]
    near = [record(f"near-{number}", edited(original(number), number)) for number in range(0, originals, 7)]
    first += copies[::2] + near[::2]
    second += near[1::2] + copies[1::2]
    for name, records in (("a.json", first), ("b.json", second)):
        (folder / name).write_text(json.dumps(records, ensure_ascii=False), encoding="utf-8")
    kinds: dict[str, set[str]] = {"original": set(), "late": set(), "copy": set(), "near": set()}
    for item in (*first, *second):
        kinds[item["uniqueKey"].split("-")[0]].add(item["uniqueKey"])
    return kinds


def dedup_config(base: Path, dedup: dict[str, Any] | None, **changes: Any) -> PreprocessConfig:
    """The config of the corpus under ``base``."""
    return config_for(base, **{"dedup": dedup, "tasks": {"bytes": 9000}, **changes})


def kept_ids(store: Store, manifest: Manifest) -> list[str]:
    """The identifiers of the documents that were written, in order, with their split in front."""
    found = []
    for shard in manifest.shards:
        with store.open(shard.docs.key) as stream:
            rows = read_rows(stream, range(shard.documents), shard.docs.key)
        found += [f"{shard.split} {row.id}" for row in rows]
    return found
