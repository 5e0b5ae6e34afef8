"""The example library as data: small invented papers of our own making. Nobody measured any of this.

`make_library.py` writes the Zotero export and the PDFs from it.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Paper:
    key: int
    """As Zotero numbers items: `#item_<key>`, and the folder of its file."""
    title: str
    authors: tuple[tuple[str, str], ...]
    """Family name, given name."""
    date: str
    doi: str
    journal: str
    issn: str
    volume: str
    pages: str
    tags: tuple[str, ...]
    collection: str
    abstract: str
    language: str = "en"
    automatic_tags: tuple[str, ...] = ()
    note: str = ""
    sections: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """The body of its PDF; an item without sections has no PDF."""
    is_broken: bool = False
    """It has a PDF that nothing can read."""


SOIL, SLEEP, VOLUNTEERS = "Soil and water", "Sleep and memory", "Citizen science"

_FIELDS = ("Journal of Small Field Studies", "0000-0019")
_REST = ("Rest and Recall", "0000-0027")
_COUNTS = ("Counting Together", "0000-0035")

PAPERS = (
    Paper(
        key=11,
        title="Soil moisture at sowing predicts maize yield on sandy fields",
        authors=(("Okonjo", "Amara"), ("Brandt", "Lena")),
        date="2019-03-14",
        doi="10.5555/paperlog.0011",
        journal=_FIELDS[0],
        issn=_FIELDS[1],
        volume="7",
        pages="12-19",
        tags=("soil moisture", "maize", "crop yield"),
        automatic_tags=("Agriculture",),
        collection=SOIL,
        note="<h1>Reading note</h1><p>Compare the <b>40 cm</b> readings with the school garden probes: same depth, cheaper sensor.</p>",
        abstract=(
            "On sandy soils the water that is in the ground when maize is sown may decide more of the harvest than the rain "
            "that follows. We measured volumetric soil moisture at 20, 40 and 60 centimetres on the day of sowing on 36 fields "
            "over four seasons and compared it with grain yield. Moisture at 40 centimetres explained 58 percent of the variation "
            "in yield, summer rainfall explained 21 percent. Fields that began the season below 12 percent moisture never reached "
            "the regional average, whatever the summer brought. A single measurement at sowing is a cheap early warning."
        ),
        sections=(
            (
                "Introduction",
                (
                    (
                        "Farmers on sandy plains know that a dry April is a bad sign. Sand holds little water, roots of young maize are "
                        "short, and what has drained below the root zone is lost to the plant. Yet most yield forecasts begin with the "
                        "rain of June and July. They treat the soil as a bucket that starts every season at the same level."
                    ),
                    (
                        "This paper asks a simple question: how much of the harvest is already decided on the day of sowing? If the answer "
                        "is a large part, a forecast can be given months earlier, and a farmer who knows that the profile is dry can choose "
                        "a variety with a shorter season, sow fewer plants, or plan irrigation for the few weeks in which it matters most."
                    ),
                ),
            ),
            (
                "Methods",
                (
                    (
                        "We worked with 36 fields of sandy loam in one river plain, each between two and nine hectares, for four seasons. "
                        "On the day of sowing we took readings at three depths, 20, 40 and 60 centimetres, at five points per field, with a "
                        "time-domain probe that had been calibrated against oven-dried cores from the same fields. Grain yield was weighed "
                        "at harvest and corrected to fourteen percent water."
                    ),
                    (
                        "Rain was recorded by eleven gauges. We fitted linear mixed models with field as a random effect and compared models "
                        "that knew only moisture, only rain, or both. The order of the fields was shuffled before the analysis, and the person "
                        "who weighed the grain did not know the readings of spring."
                    ),
                ),
            ),
            (
                "Results",
                (
                    (
                        "Moisture at 40 centimetres was the best single predictor and explained 58 percent of the variation in grain yield. "
                        "The reading at 20 centimetres, which a shower of the week before can change, explained 31 percent. Summer rainfall "
                        "alone explained 21 percent, and adding it to the moisture at 40 centimetres raised the share to 66 percent."
                    ),
                    (
                        "There was a threshold. Of the 29 field seasons that began below twelve percent volumetric moisture at 40 centimetres, "
                        "none reached the regional average yield of 7.4 tonnes per hectare. Of the 83 that began above it, 61 did. Two wet summers "
                        "did not rescue the fields that had begun dry: the plants had rooted shallowly and could not use the later rain."
                    ),
                ),
            ),
            (
                "Discussion",
                (
                    (
                        "The water in the profile at sowing is a memory of winter. It can be measured in a morning, and it says more about the "
                        "harvest than the rain of the months in between. We do not claim that summer rain is unimportant; on heavier soils, which "
                        "store more, it may matter less still, and on gravel it may be all there is."
                    ),
                    (
                        "Our fields lie in one plain, and four seasons are few. The threshold of twelve percent belongs to this soil and should "
                        "not be carried elsewhere without new cores. What can be carried elsewhere is the habit of looking into the ground before "
                        "looking at the sky."
                    ),
                ),
            ),
            (
                "References",
                (
                    "Brandt, L., Ribeiro, T. (2021). A low-cost capacitive probe for soil moisture in school gardens. Counting Together 4, 3-9.",
                    "Okonjo, A. (2020). Cover crops keep water in the root zone during dry springs. Journal of Small Field Studies 8, 44-51.",
                ),
            ),
        ),
    ),
    Paper(
        key=12,
        title="A low-cost capacitive probe for soil moisture in school gardens",
        authors=(("Brandt", "Lena"), ("Ribeiro", "Tomás")),
        date="2021",
        doi="10.5555/paperlog.0012",
        journal=_COUNTS[0],
        issn=_COUNTS[1],
        volume="4",
        pages="3-9",
        tags=("soil moisture", "sensors", "citizen science"),
        automatic_tags=("Education",),
        collection=SOIL,
        abstract=(
            "Pupils of fourteen schools built a capacitive soil moisture probe from parts that cost less than a textbook and read it twice "
            "a week for a year. We describe the probe, the calibration that a class can do with a kitchen scale and an oven, and the errors that "
            "remain. After calibration the probes agreed with a reference instrument within 2.6 percentage points of volumetric water. Most of "
            "the remaining error came from air gaps around the blade, not from the electronics."
        ),
        sections=(
            (
                "Introduction",
                (
                    (
                        "Instruments for soil moisture cost as much as a bicycle or as much as a car. Neither is what a school buys for a garden. "
                        "Capacitive blades that are sold for house plants cost very little, but their numbers have no unit and change with "
                        "temperature, salt and the way in which the blade was pushed into the ground."
                    ),
                    (
                        "We wanted to know whether pupils can turn such a blade into an instrument. The point was not only the price. A class that "
                        "has calibrated a sensor by itself knows what a measurement is, and doubts the right things afterwards."
                    ),
                ),
            ),
            (
                "The probe",
                (
                    (
                        "The probe is a blade of printed circuit board, sealed with varnish at its edges, a timer that turns its capacitance into a "
                        "frequency, and a small battery. It has no display. A reading is a count of pulses in one second, which the pupils write into "
                        "a table together with the temperature of the soil."
                    ),
                    (
                        "Sealing the edges matters more than anything else. Of the first forty probes, nine drifted within a month because water had "
                        "crept between the layers of the board. None of those that were dipped twice in varnish did."
                    ),
                ),
            ),
            (
                "Calibration in the classroom",
                (
                    (
                        "Each class filled eight tins with soil from its own garden, dried at 105 degrees in an oven, and added a known mass of water "
                        "to each. The blade was read in every tin, three times, by three pupils. A curve was drawn by hand through the points before "
                        "anybody was shown how to fit one. The whole lesson takes two mornings and a kitchen scale."
                    ),
                ),
            ),
            (
                "Results",
                (
                    (
                        "Before calibration the probes differed from the reference instrument by up to nineteen percentage points of volumetric water. "
                        "After it the mean absolute difference was 2.6 points. When a probe was pulled out and pushed in again a hand's width away, "
                        "the reading changed by 2.1 points on average, so that most of what remains is the contact between blade and soil."
                    ),
                    (
                        "Pupils kept to the rhythm of two readings a week for nine months and then lost interest in the summer break. Schools that "
                        "showed the readings of all gardens on one map lost fewer."
                    ),
                ),
            ),
            (
                "Conclusion",
                (
                    (
                        "A probe at the price of a lunch is good enough to see a dry spell coming, to compare two beds, and to teach. It is not good "
                        "enough to decide on irrigation by itself. Plans and the calibration lesson are free to copy."
                    ),
                ),
            ),
        ),
    ),
    Paper(
        key=13,
        title="Cover crops keep water in the root zone during dry springs",
        authors=(("Okonjo", "Amara"),),
        date="May 2020",
        doi="10.5555/paperlog.0013",
        journal=_FIELDS[0],
        issn=_FIELDS[1],
        volume="8",
        pages="44-51",
        tags=("cover crops", "soil moisture", "drought"),
        collection=SOIL,
        abstract=(
            "Cover crops use water in winter and save it in spring. Over three seasons we compared bare fallow with rye, clover and a mixture of "
            "both. Until March the covered plots were drier; from the middle of April the mulch of the killed cover lowered evaporation so much "
            "that the root zone held 9 to 14 millimetres more water than under bare soil. In a wet spring there was no difference. Killing the "
            "cover three weeks before sowing gave the best balance."
        ),
    ),
    Paper(
        key=14,
        title="Field notes on irrigation scheduling with farmers",
        authors=(("Ribeiro", "Tomás"), ("Okonjo", "Amara")),
        date="2022-06",
        doi="10.5555/paperlog.0014",
        journal=_FIELDS[0],
        issn=_FIELDS[1],
        volume="10",
        pages="70-76",
        tags=("irrigation", "participatory research"),
        collection=SOIL,
        abstract=(
            "Twelve farmers kept a diary of when they irrigated and why. Advice from a water balance model was followed on a third of the days. "
            "The reasons for the other days were mostly good ones: a neighbour's turn at the canal, a broken pump, a leaf that curled at noon. "
            "We suggest that scheduling tools should ask for these reasons instead of counting them as errors."
        ),
        is_broken=True,
    ),
    Paper(
        key=21,
        title="Sleep spindles and the recall of word pairs after a nap",
        authors=(("Halonen", "Mira"), ("Kim", "Jae-won")),
        date="2018-11-02",
        doi="10.5555/paperlog.0021",
        journal=_REST[0],
        issn=_REST[1],
        volume="3",
        pages="101-110",
        tags=("sleep", "memory consolidation", "sleep spindles"),
        automatic_tags=("Electroencephalography",),
        collection=SLEEP,
        note="<p>Good example of a <em>control group that lies awake</em>. Sample is small.</p>",
        abstract=(
            "A nap of an hour after learning helps the recall of word pairs. Whether the help comes from sleep itself or from lying still in a "
            "dark room is less clear. Forty-eight adults learned eighty pairs of unrelated words and then napped, rested awake in the dark, or "
            "watched a silent film. Nappers recalled 9.3 pairs more than those who watched the film and 6.1 more than those who rested. Within the "
            "nappers, the density of sleep spindles over the central electrodes went with recall; the length of the nap did not."
        ),
        sections=(
            (
                "Introduction",
                (
                    (
                        "What is learned before sleep is often remembered better than what is learned before an evening of other things. Two accounts "
                        "compete. In the first, sleep does something: bursts of activity between eleven and sixteen hertz, the spindles, mark moments in "
                        "which the new traces are played again and made firm. In the second, sleep only protects: nothing else is learned meanwhile."
                    ),
                    (
                        "A nap in the laboratory can separate the two if it is compared with quiet rest. Those who rest in the dark learn nothing new "
                        "either, but they have no spindles."
                    ),
                ),
            ),
            (
                "Methods",
                (
                    (
                        "Forty-eight adults between 19 and 34 years learned eighty pairs of unrelated nouns until they could give six in ten. They were then "
                        "assigned by lot to a nap of at most sixty minutes, to rest with open eyes in a dark room, or to a silent film about rivers. All "
                        "wore electrodes, the watchers too. Recall was tested three hours after learning by a person who did not know the group."
                    ),
                    (
                        "Spindles were counted by an automatic detector at C3 and C4 and checked by hand in a tenth of the recordings. Density is the number "
                        "of spindles per minute of the second stage of sleep."
                    ),
                ),
            ),
            (
                "Results",
                (
                    (
                        "Nappers recalled 52.4 of the eighty pairs, those who rested 46.3, those who watched the film 43.1. The difference between nap and rest "
                        "was clear, the difference between rest and film was not. Quiet rest therefore explains at most a part of what a nap does."
                    ),
                    (
                        "Within the sixteen nappers the density of spindles went with recall, with a correlation of 0.61. Neither the length of the nap nor the "
                        "minutes of deep sleep did. Three people did not fall asleep; without them the picture is the same."
                    ),
                ),
            ),
            (
                "Discussion",
                (
                    (
                        "Our numbers fit the account in which sleep does something. They do not prove that spindles are the cause: people with many spindles may "
                        "differ in other ways, and the correlation rests on sixteen of them. An experiment that evokes spindles by quiet sounds would say more."
                    ),
                    "For practice the finding is modest and pleasant. After learning vocabulary, an hour of sleep in the afternoon is not lost time.",
                ),
            ),
        ),
    ),
    Paper(
        key=22,
        title="수면 부족이 공간 기억에 미치는 영향 [Effects of sleep loss on spatial memory]",
        authors=(("김", "재원"), ("Halonen", "Mira")),
        date="2022",
        doi="10.5555/paperlog.0022",
        journal=_REST[0],
        issn=_REST[1],
        volume="7",
        pages="15-24",
        language="ko",
        tags=("수면", "공간 기억", "sleep deprivation"),
        collection=SLEEP,
        abstract=(
            "하룻밤 수면을 제한한 뒤 참가자들이 가상 도시에서 길을 찾는 능력을 비교하였다. 잠을 네 시간만 잔 집단은 이미 배운 길은 잘 찾았지만 새로운 지름길을 "
            "만드는 과제에서 오류가 두 배로 늘었다. Thirty-two people explored a virtual town and were tested after a full night or after four hours of "
            "sleep. Known routes were found equally well; new shortcuts were not. Sleep loss seems to spare the route and harm the map."
        ),
    ),
    Paper(
        key=23,
        title="Sleep quality and exam results in first-year students",
        authors=(("Duarte", "Inês"), ("Kim", "Jae-won"), ("Halonen", "Mira")),
        date="12/2020",
        doi="10.5555/paperlog.0023",
        journal=_REST[0],
        issn=_REST[1],
        volume="5",
        pages="60-68",
        tags=("sleep", "students", "academic performance"),
        collection=SLEEP,
        abstract=(
            "Do students who sleep well get better marks, and is it the sleep of the last night or of the whole term? For fourteen weeks 212 first-year "
            "students wore a wrist actigraph. Regular bed times over the term predicted exam results better than hours of sleep did, and the night before "
            "the exam predicted nothing. The effect was largest in subjects that build on themselves week by week, such as mathematics."
        ),
        sections=(
            (
                "Introduction",
                (
                    (
                        "The advice to sleep well before an exam is old, and its evidence is thin. Most studies ask for the hours of sleep in a questionnaire, once, "
                        "and tired students remember their nights badly. A device at the wrist does not forget."
                    ),
                ),
            ),
            (
                "Methods",
                (
                    (
                        "Of 640 first-year students who were asked, 212 wore an actigraph for the fourteen weeks of their first term. From its records we took three "
                        "numbers for each: the mean hours of sleep, the regularity of bed times as the standard deviation in minutes, and the hours in the night before "
                        "each exam. Marks came from the register with the consent of the students. The marks of school were used as a covariate."
                    ),
                ),
            ),
            (
                "Results",
                (
                    (
                        "A student whose bed times varied by half an hour less than another's had marks better by 0.21 grades, after correction for the marks of school. "
                        "Mean hours of sleep added little. The night before the exam had no effect that we could see, in either direction."
                    ),
                    (
                        "In mathematics and chemistry the effect of regularity was twice that in history and law. We had not expected this and report it as a finding to "
                        "be tested, not as one that is established."
                    ),
                ),
            ),
            (
                "Discussion",
                (
                    (
                        "Regular sleep may help memory night after night, or regular people may simply study regularly. An observational study cannot tell these apart. "
                        "Subjects in which each week builds on the one before would suffer more from a badly kept week, by either path."
                    ),
                    (
                        "What can be said is that one good night does not repair a term, and one bad night does not ruin it. Students who lie awake before an exam may "
                        "find comfort in that."
                    ),
                ),
            ),
            (
                "Conclusion",
                (
                    "Bed times that hardly vary go with better marks; the last night before the exam does not.",
                ),
            ),
        ),
    ),
    Paper(
        key=31,
        title="How volunteers agree: reliability of counts in citizen science",
        authors=(("Ribeiro", "Tomás"), ("Nakagawa", "Emi")),
        date="2017",
        doi="10.5555/paperlog.0031",
        journal=_COUNTS[0],
        issn=_COUNTS[1],
        volume="1",
        pages="1-11",
        tags=("citizen science", "inter-rater reliability", "data quality"),
        automatic_tags=("Methodology",),
        collection=VOLUNTEERS,
        abstract=(
            "Volunteers count things that no institute could pay for. Whether two volunteers who look at the same plot see the same thing is rarely asked. "
            "We let 96 volunteers count wild flowers on plots that each were visited by three of them on the same day. Agreement was high for plants that are "
            "common and large, with an intraclass correlation of 0.88, and poor for grasses. Half an hour of training with pictures of look-alikes raised "
            "agreement more than years of experience did."
        ),
        sections=(
            (
                "Introduction",
                (
                    (
                        "Programmes in which volunteers collect data are judged by the size of their tables. The quality of a count is harder to show. Experts who check "
                        "a sample can say how often a volunteer was right, but experts are few, and they too disagree."
                    ),
                    (
                        "A cheaper question is whether volunteers agree with each other. Agreement is not truth; but where three people who looked at the same square metre "
                        "on the same day give three numbers, at least two of them are wrong."
                    ),
                ),
            ),
            (
                "Methods",
                (
                    (
                        "Ninety-six volunteers visited 144 plots of one square metre along forest edges. Every plot was counted by three people on one day, who did not speak "
                        "about it. Eighteen kinds of flowering plants and four grasses were on the list. Half of the volunteers, drawn by lot, had seen thirty minutes of "
                        "pictures in which similar kinds stood side by side."
                    ),
                    (
                        "Agreement was measured by the intraclass correlation of the counts, and by Krippendorff's alpha for presence and absence. Years of experience were "
                        "asked for before the training."
                    ),
                ),
            ),
            (
                "Results",
                (
                    (
                        "For common flowers of more than two centimetres the intraclass correlation was 0.88. For small flowers it was 0.71, for grasses 0.34. Training raised "
                        "the value for small flowers from 0.62 to 0.80 and did little for grasses. Ten years of experience raised it by 0.05."
                    ),
                    (
                        "Most disagreement about presence came from look-alikes: what one volunteer called one kind, another called its neighbour in the book, and both "
                        "were sure. Blank fields, by contrast, were rare."
                    ),
                ),
            ),
            (
                "Discussion",
                (
                    (
                        "A short training that shows confusable kinds next to each other is worth more than long experience without it. Programmes should publish agreement "
                        "next to their maps, kind by kind, and should leave out of their trends what volunteers cannot tell apart."
                    ),
                    "Three visits per plot are a luxury. A tenth of the plots visited twice would be enough to see where a programme stands.",
                ),
            ),
        ),
    ),
    Paper(
        key=32,
        title="Keeping volunteers: feedback messages in a bird counting programme",
        authors=(("Nakagawa", "Emi"), ("Duarte", "Inês")),
        date="2023-01-20",
        doi="10.5555/paperlog.0032",
        journal=_COUNTS[0],
        issn=_COUNTS[1],
        volume="6",
        pages="30-38",
        tags=("citizen science", "motivation", "birds"),
        collection=VOLUNTEERS,
        abstract=(
            "Half of those who join a counting programme never send a second list. In a randomised trial with 2,410 new members of a garden bird programme we "
            "compared three messages after the first list: a plain receipt, a comparison with other gardens nearby, and a sentence that said what the list had been "
            "used for. The last one raised the share who were still counting after six months from 31 to 43 percent. The comparison with neighbours did nothing on "
            "average and put off those whose gardens had few birds."
        ),
        sections=(
            (
                "Introduction",
                (
                    (
                        "Recruiting is expensive and visible, leaving is silent. A volunteer who stops counting tells nobody. Programmes know how many lists they received; "
                        "few know how many people sent only one."
                    ),
                    "Feedback is the one thing that every programme can give to every volunteer. What it should say is a question for an experiment rather than for taste.",
                ),
            ),
            (
                "Methods",
                (
                    (
                        "New members of a garden bird programme were assigned by lot to one of three messages, sent the morning after their first list. The receipt thanked "
                        "them. The comparison showed a bar for their garden and one for gardens within ten kilometres. The use message named one analysis or one "
                        "decision to which lists of that month had contributed, in a single sentence with a link."
                    ),
                    "The outcome, fixed in advance, was whether a member sent a list in the sixth month.",
                ),
            ),
            (
                "Results",
                (
                    (
                        "Of those who had received the plain receipt, 31 percent were still counting after six months, of the comparison group 32 percent, of those who were "
                        "told what their list was used for 43 percent. In the comparison group the members with fewer birds than their neighbours left more often than the "
                        "others, and those with more birds stayed, so that the two cancelled out."
                    ),
                ),
            ),
            (
                "Discussion",
                (
                    (
                        "People do not count birds in order to have more birds than their neighbours. They want the count to be of use. Telling them so costs one sentence, "
                        "provided that it is true; a programme that cannot name a use of last month's lists has another problem."
                    ),
                ),
            ),
        ),
    ),
)

DUPLICATE = Paper(
    key=41,
    title="How volunteers agree: reliability of counts in citizen science",
    authors=(("Ribeiro", "T."), ("Nakagawa", "E.")),
    date="2017",
    doi="https://doi.org/10.5555/PAPERLOG.0031",
    journal=_COUNTS[0],
    issn=_COUNTS[1],
    volume="1",
    pages="1-11",
    tags=("volunteers",),
    collection=VOLUNTEERS,
    abstract="",
)
"""The same paper once more, as it comes from another catalogue: one DOI, written differently."""
