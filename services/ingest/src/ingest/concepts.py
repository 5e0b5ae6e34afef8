"""Concepts of a document without any model: its tags, and keyphrases of title and abstract by term statistics.

Keyphrases are found as RAKE does it (Rose et al. 2010): runs of words between stop words and punctuation, scored by
how much their words keep company. Four scripts and languages tell more: German writes its nouns with a capital, and
nothing else is taken there; Chinese has no spaces, so there the stop words divide; Korean hangs particles onto nouns,
which are taken off, and a phrase ends there; Arabic hangs "and" onto the article. What a language model would find comes
from a function of the same shape as `keyphrases`, text in and scored names out; the rest here does not care who named a
concept.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from eventlog.ids import normalise_name
from ingest import limits

NAME_CHARACTERS_MAX = 80
HAN_CHARACTERS_MAX = 12
HANGUL_STEM_MAX = 12
MENTION_CHARACTERS_MIN = 3
TAG_SCORE = 0.95
"""As the replaced system scored Zotero's tags (BASELINE.md section 5)."""

_GERMAN = frozenset(
    """
    der die das und oder ein eine einer eines einem einen den dem des im in ist sind war waren mit von zu zur zum
    auf für als auch nicht bei nach aus wie durch über unter wird werden dass sich es an wir ich man haben hat hatte
    hatten wurde wurden worden kann können soll so wenn dann noch nur mehr sehr je desto dieser diese dieses diesem
    diesen deren dessen ihre ihr seine sein beim vom zwischen sowie oft anhand wer was wann ob aber gegen ohne ab
    """.split()  # noqa: SIM905 - a list literal of hundreds of words is no easier to read
)
_STOP = _GERMAN | frozenset(  # English, French, Spanish, Korean, Arabic too: what fills sentences, and papers
    """
    a about above after again against all also although am an and any are as at be because been before being below
    between both but by can cannot could did do does doing down due during each either et etc few for from further had
    has have having he her here hers him his how however i if in into is it its itself just may me might more most much
    must my nor not now of off on once one only or other our ours out over own per same shall she should since so some
    such than that the their theirs them then there these they this those three through thus to too two under until up
    upon us use used using via very was we well were what when where whether which while who whom why will with within
    without would yet you your al paper papers study studies article show shows shown found find results result new
    based propose proposed present presents presented approach however among across between many often several
    le la les un une des du de et ou est sont dans par pour sur avec au aux ce cette ces qui que dont plus
    el los las una unos unas y o es son en por para con del al se que como más su sus
    이 그 저 본 및 등 또 또한 더 그러나 그리고 때 것 수 중 각 두 세 한 모든 매우 연구 논문 결과 방법 분석 영향 위해 통해 대해 따라 대한 위한 관한 통한 따른 의한 가운데
    정도 이를 우리 경우 사이 우선 다시 모두 서로 함께 덜 잘 새로운
    في من على إلى عن مع هذا هذه ذلك تلك التي الذي الذين أن إن كان كانت كانوا لم لن لا ما هل كما أو ثم بين عند لدى كل
    بعد قبل منذ حتى قد وقد لقد هو هي هم نحن حيث أما إذا كلما بل غير أي أيضا أكثر أقل خلال حول دون فوق تحت ولكن وكان
    وكانت وفي ومن وعلى أثر دراسة الدراسة بحث البحث نتائج النتائج بحثنا قارنا قسنا سألنا درسنا
    """.split()  # noqa: SIM905 - a list literal of hundreds of words is no easier to read
)
_PIECE = re.compile(r"[^\W_]+(?:[-'\u2019][^\W_]+)*|[^\w\s]+|\n")
_WORD = re.compile(r"[^\W_]+(?:[-'\u2019][^\W_]+)*")

_HAN = re.compile("[\u3400-\u9fff]")
_HAN_STOP_WORDS = """
    本研究 本文 本论文 我们 他们 以及 或者 并且 但是 因此 由于 对于 关于 通过 利用 使用 采用 基于 根据 为了 作为 认为 进行
    研究 探讨 分析 结果 表明 发现 显示 提出 比较 影响 作用 效应 方法 问题 情况 方面 之间 之后 之前 其中 其他 同时 不同 明显
    显著 降低 提高 增加 减少 具有 可以 能够 如何 怎样 什么 没有 不是 就是 这些 那些 这种 一种 一个 两种 三种 各种 主要 重要
    相关 程度 过程 中国 确定 估算 学习 我國 我们的 本研究的 研究中 影響 進行 發現 顯示 結果 關於 對於 的 了 和 与 與 及 或 对
    對 在 是 从 從 将 將 把 被 其 该 該 此 而 且 也 都 又 就 由 以 于 於 所 等 很 并 並 个 個
"""
_HAN_KEPT = """
    对照 相对 绝对 配对 词对 目的 存在 内在 潜在 行为 自由 理由 由来 所有 等级 平等 高等 温和 饱和 共和 中和 参与 涉及 普及 将来 个体 个性 個體
"""
"""Words that hold one of the short stop words, and stay whole."""
_HAN_STOP = re.compile(  # longest first, since a short one may begin a long one
    f"(?P<kept>{'|'.join(_HAN_KEPT.split())})|"
    + "|".join(sorted(_HAN_STOP_WORDS.split(), key=lambda word: (-len(word), word)))
)
_KANA = re.compile("[\u3040-\u309f]+")
"""Hiragana: what stands between nouns in Japanese."""

_HANGUL = re.compile("[\uac00-\ud7a3]+")
_PARTICLES = (
    "으로부터", "에서는", "에서의", "에게서", "으로의", "이라는", "에서", "에게", "으로", "부터", "까지", "처럼", "보다", "라는", "이란", "에는",
    "들이", "들을", "들은", "들의", "은", "는", "을", "를", "의", "에",
)  # fmt: skip
_PARTICLES_PERHAPS = ("이", "가", "와", "과", "로", "도", "만", "들")
"""Nouns end so too: the first three are taken off where their sound fits, the others only where the rest stands in the
text in another form as well."""
_NOUNS = (
    "어린이",
    "고양이",
    "호랑이",
    "젊은이",
    "늙은이",
    "거북이",
    "쌍둥이",
    "원숭이",
    "곰팡이",
    "달팽이",
    "어버이",
)
_VERB = re.compile(
    "(?:다|하는|되는|하여|되어|하고|되고|하며|되며|하게|하기|되기|시킨|시키는|있는|없는|미치는|이용한|사용한|참여한|분리한)$"
)

_ARABIC_MARKS = re.compile("[\u0640\u064b-\u065f\u0670]")
_BEFORE_ARTICLE = re.compile(r"(?<!\w)[\u0648\u0641\u0628\u0643](?=\u0627\u0644\w\w)")
_PROCLITICS = "\u0648\u0641\u0628\u0643\u0644"


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """`name` as it is written, `key` normalised; score from 0 to 1."""

    name: str
    key: str
    score: float


def keyphrases(title: str, text: str) -> list[Named]:
    """At most `KEYPHRASES_MAX`, best first; phrases of the title count more, and chance words do not count."""
    found: Counter[str] = Counter()
    spelling: dict[str, str] = {}
    frequency: Counter[str] = Counter()
    company: Counter[str] = Counter()
    title, text = _divided(title), _divided(text)
    stems = _stems(f"{title} {text}")
    nouns_only = _is_german(f"{title} {text}")
    for phrase in (
        *_phrases(title, stems, nouns_only=nouns_only),
        *_phrases(text, stems, nouns_only=nouns_only),
    ):
        words = [word.casefold() for word in phrase]
        key = " ".join(words)
        found[key] += 1
        spelling.setdefault(key, " ".join(phrase))
        for word in words:
            frequency[word] += 1
            company[word] += sum(_length(one) for one in words)
    in_title = normalise_name(title)
    scores = {
        key: sum(company[word] / frequency[word] for word in key.split())
        * count
        * (2 if key in in_title else 1)
        for key, count in found.items()
        if count > 1 or key in in_title or (len(key.split()) > 1 and not _HANGUL.search(key))
    }
    best = sorted(scores.items(), key=lambda one: (-one[1], one[0]))[: limits.KEYPHRASES_MAX]
    top = best[0][1] if best else 1.0
    return [
        Named(name=spelling[key], key=normalise_name(spelling[key]), score=round(score / top, 4))
        for key, score in best
    ]


def _divided(text: str) -> str:
    """With a line end where a phrase cannot go on though nothing of the script says so."""
    text = _BEFORE_ARTICLE.sub("\n", _ARABIC_MARKS.sub("", text))
    if not _HAN.search(text):
        return text
    return _KANA.sub("\n", _HAN_STOP.sub(lambda found: found["kept"] or "\n", text))


def _length(word: str) -> int:
    """In words; a run of ideographs has one for every two."""
    return -(-len(word) // 2) if _HAN.match(word) else 1


def _is_german(text: str) -> bool:
    """A fifth of a German text are words that hardly stand in any other."""
    words = [word.casefold() for word in _WORD.findall(text)]
    return sum(word in _GERMAN for word in words) * 5 > len(words)


def _phrases(text: str, stems: Mapping[str, int], *, nouns_only: bool) -> list[list[str]]:
    phrases: list[list[str]] = []
    current: list[str] = []
    for piece in (*_PIECE.findall(text), "\n"):
        word, is_last = _noun(piece, stems) if _HANGUL.fullmatch(piece) else (piece, False)
        is_word = word[:1].isalnum() and word.casefold() not in _STOP and not word.isdigit()
        is_word = is_word and not (nouns_only and word[0].islower())
        if is_word:
            current.append(word)
            if not is_last:
                continue
        if 1 <= len(current) <= 4 and _is_name(" ".join(current)):
            phrases.append(current)
        current = []
    return phrases


def _is_name(phrase: str) -> bool:
    """Long enough to mean something; a run of ideographs that nothing divides is a sentence."""
    if _HAN.search(phrase):
        return 2 <= len(phrase) <= HAN_CHARACTERS_MAX
    return len(phrase) > (1 if _HANGUL.search(phrase) else MENTION_CHARACTERS_MIN)


def _noun(word: str, stems: Mapping[str, int]) -> tuple[str, bool]:
    """A Korean word without its particle, and whether it had one, which ends a phrase; a verb is no noun."""
    if _VERB.search(word):
        return "", True
    for particle in _PARTICLES:
        stem = word.removesuffix(particle)
        if stem != word and len(stem) >= 2:
            return stem, True
    for particle in _PARTICLES_PERHAPS:
        stem = word.removesuffix(particle)
        if stem == word or len(stem) < 2 or not _fits(stem, particle) or word.endswith(_NOUNS):
            continue
        if particle in "이가와" or stems.get(stem, 0) > 1:
            return stem, True
    return word, False


def _stems(text: str) -> Mapping[str, int]:
    """With how many of the text's Korean words each of their beginnings goes on."""
    forms = set(_HANGUL.findall(text))
    return Counter(form[:end] for form in forms for end in range(2, min(len(form), HANGUL_STEM_MAX) + 1))


def _fits(stem: str, particle: str) -> bool:
    """Some particles follow a consonant only, some a vowel: a syllable's place in Unicode tells its last sound."""
    ends_in_consonant = (ord(stem[-1]) - 0xAC00) % 28 > 0
    return {"이": ends_in_consonant, "과": ends_in_consonant, "가": not ends_in_consonant,
            "와": not ends_in_consonant}.get(particle, True)  # fmt: skip


def name_concepts(tags: Sequence[str], title: str, text: str) -> list[Named]:
    """Tags first, then keyphrases; one entry for each normalised name."""
    out: dict[str, Named] = {}
    for tag in tags:
        key = normalise_name(tag)[:NAME_CHARACTERS_MAX]
        if key and key not in out:
            out[key] = Named(name=tag[:NAME_CHARACTERS_MAX], key=key, score=TAG_SCORE)
    for phrase in keyphrases(title, text):
        if phrase.key and len(phrase.key) <= NAME_CHARACTERS_MAX:
            out.setdefault(phrase.key, phrase)
    return list(out.values())[: limits.CONCEPTS_MAX]


def mentions(keys: Sequence[str], texts: Iterable[tuple[int, str]]) -> dict[str, tuple[int, ...]]:
    """Which of the numbered texts contain each normalised name, at word boundaries where its script has them."""
    sought = [
        (key, has_boundaries)
        for key in keys
        if len(key) >= (MENTION_CHARACTERS_MIN if (has_boundaries := _has_boundaries(key)) else 2)
    ]
    found: dict[str, list[int]] = {key: [] for key in keys}
    for index, text in texts:
        folded = normalise_name(text)
        for key, has_boundaries in sought:
            if _occurs(key, folded, has_boundaries=has_boundaries):
                found[key].append(index)
    return {key: tuple(indexes) for key, indexes in found.items()}


def _has_boundaries(key: str) -> bool:
    """Scripts without spaces between words have no boundary to ask for."""
    return not any(
        "\u3040" <= c <= "\u30ff" or "\u3400" <= c <= "\u9fff" or "\uac00" <= c <= "\ud7a3" for c in key
    )


def _occurs(key: str, text: str, *, has_boundaries: bool) -> bool:
    at = text.find(key)
    while at >= 0:
        end = at + len(key)
        if not has_boundaries or not (_is_inside(text, at) or _is_word(text[end : end + 1])):
            return True
        at = text.find(key, at + 1)
    return False


def _is_inside(text: str, at: int) -> bool:
    """Whether a word has begun before; a letter that Arabic hangs onto a word does not count."""
    before = text[at - 1 : at]
    return _is_word(before) and not (before in _PROCLITICS and not _is_word(text[at - 2 : at - 1]))


def _is_word(character: str) -> bool:
    return character.isalnum() or character == "_"
