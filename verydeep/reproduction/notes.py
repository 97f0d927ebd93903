"""Sentences around the report's tables and charts, for HTML and Markdown alike."""

from verydeep.presentation.numbers import counted, duration, interval, number, percent, plural
from verydeep.reproduction import paper
from verydeep.reproduction.limits import listed
from verydeep.reproduction.paper_tables import PaperTable
from verydeep.reproduction.results import GridResults
from verydeep.reproduction.trainings import SEVEN

CLAIMS = "Each is one comparison or more; it holds if all of them stand."

STATE_OF_THE_ART = (
    "As Table 7 of the paper: errors in % on ImageNet (ILSVRC), 1,000 classes of photographs. They show where the "
    "paper stood; errors on other images cannot be compared with them."
)

STATE_OF_THE_ART_TESTS = (
    "VGG's two networks are D and E; these and the single one were tested by multi-crop and dense evaluation, the "
    "seven of the submission densely. – means that the paper reports none. With images from outside of ILSVRC, "
    f"Clarifai reached a top-5 test error of {percent(paper.CLARIFAI_WITH_OUTSIDE_DATA_TOP5_TEST)}%."
)


def trained(results: GridResults) -> str:
    """Say what was trained: `7 trainings of 7 networks`."""
    seeds = f", each with {len(results.seeds)} seeds" if len(results.seeds) > 1 else ""
    return f"{counted(len(results.trainings), 'training')} of {counted(len(results.networks), 'network')}{seeds}"


def summary(results: GridResults) -> str:
    """Say how long it took, what became of the claims, and which result is best."""
    best, verdicts, told = results.best, results.verdicts, ""
    if results.findings:
        holding, opposite = verdicts.get("holds", 0), verdicts.get("reversed", 0)
        told = (
            f"Of the paper's {len(results.findings)} claims, {holding} {plural('holds', holding, 'hold')} on these "
            f"images, {opposite} {plural('is', opposite, 'are')} reversed, {verdicts.get('cannot be told', 0)} "
            "cannot be told. "
        )
    ends = f" (95% interval {interval(best.top1_error_ci95)})" if best.top1_error_ci95 else ""
    return (
        f"in {duration(results.training_seconds)}. {told}The lowest error on {number(best.n)} test images is "
        f"{percent(best.top1_error)}%{ends}, of {best.network}; it is the lowest of {results.results_compared} results."
    )


def difference(results: GridResults) -> str:
    """Say what the differences of the claims are."""
    seeds = ", mean over the seeds" if len(results.seeds) > 1 else ""
    return f"The difference is the first's top-1 error minus the second's, in points{seeds}."


def p_values(results: GridResults) -> str:
    """Say what the p values of the claims are."""
    return (
        "p is corrected for all claims (Holm); where a claim is reversed, it is that of the opposite. 'No more' holds "
        "if the first is shown to err by less than 1 point more than the second. "
    ) + (
        "A comparison has to stand both against chance in the images (randomisation, paired) and in the seeds (t test, "
        "paired)."
        if len(results.seeds) > 1
        else "With one seed it is chance in the images alone that is tested (McNemar's test, paired)."
    )


def caption(table: PaperTable, results: GridResults) -> str:
    """Say what a table shows, and what the paper's figures beside it are."""
    sentences = [table.caption]
    if table.figures_are and not results.jittered:
        sentences.append(f"{table.figures_are} are of networks trained at S in [256;512], which were not trained here.")
    if any(row.errors.trainings == SEVEN for row in results.tables[table.number]):
        sentences.append(f"The seven are those of the paper's submission: {', '.join(SEVEN)}.")
    return " ".join(sentences)


def scales(results: GridResults) -> str:
    """Say what S, Q, stars and dashes in the tables mean."""
    best = results.best
    sentences = [
        "S and Q are stated for a crop of 224, as in the paper.",
        f"Here the crop is {results.recipe['crop']}, so that Q = {', '.join(map(str, best.test))} is "
        f"{', '.join(map(str, best.test_pixels))} pixels.",
        "The paper's errors are of 1,000 classes of photographs; – means that it reports none.",
        "* The paper's network was trained at S in [256;512].",
    ]
    if any(one.unseeded for one in results.trainings):
        sentences.append("(Glorot): from random weights, not from trained A as the paper's.")
    if len(results.seeds) > 1:
        sentences.append(
            f"Errors are means over {len(results.seeds)} seeds; intervals allow for chance in the images and in the "
            "seeds."
        )
    if best.top5_error is None:
        sentences.append("With five classes or fewer a top-5 error says nothing.")
    return " ".join(sentences)


def gains(results: GridResults) -> str:
    """Say what the gains are."""
    untrained = not all(gain.learned for gain in results.gains)
    return "Top-1 error with it minus without it, in points, on the same images." + (
        " (not learned): a network in it does no better than guessing." if untrained else ""
    )


def curves(results: GridResults) -> str:
    """Say what the learning curves are of."""
    source = results.source
    seeded = [one.label for one in results.trainings if one.start and one.scale == "256"]
    sentences = []
    if len(results.seeds) > 1:
        sentences.append("A line for each seed.")
    if seeded:
        sentences.append(f"{listed(seeded)} start from layers of trained A, the others at S = 256 from random weights.")
    if any(one.scale != "256" for one in results.trainings):
        sentences.append("At other S each network goes on from its training before.")
    also = "are not the test images" if source.tested_on != "val" else "are, as in the paper, also the test images"
    steer = f"The validation images ({number(source.images['val'])}, centre crops) steer the learning rate and {also}."
    return " ".join([*sentences, steer])


def costs(results: GridResults) -> str:
    """Say on which machine, and what the columns of the costs are."""
    seeds = " Figures of each seed are separated by commas, images/s are of all together, memory is the most."
    return (
        f"{results.versions['machine']}, {results.versions['threads']} threads."
        f"{seeds if len(results.seeds) > 1 else ''} Multiply-adds in millions for one crop."
    )
