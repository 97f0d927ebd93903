"""Evaluation on 1, 2 and 4 processes: every image counts once, and all processes agree (checks 11 and 20)."""

import numpy as np
import pytest
import several_evaluations
import several_processes

SIZES = [*range(12, 17)]
PIXELS = [40 * 40 * batch for batch in range(1, 7)]
"""Pixels of batches of about 1 to 6 images."""

INTEGERS = ("n", "top1_error", "top5_error", "top1_error_ci95", "confusions", "per_class", "comparisons", "unusable")


@pytest.fixture(scope="module")
def most(battery):
    """Images of the largest jobs: a prime, so that shares differ, and several batches for each of four processes."""
    return 97 if battery else 37


@pytest.fixture(scope="module")
def kinds(battery, most):
    """Return jobs with many numbers of images, batches of 1 to 6, broken images, and fewer images than processes.

    Those for `four` processes run on as many in the suite too.
    """
    if battery:
        plain = [{"images": n, "pixels": pixels} for n in (*SIZES, most) for pixels in PIXELS]
    else:
        plain = [{"images": n, "pixels": pixels} for n, pixels in zip((*SIZES, most), PIXELS, strict=True)]
    special = [
        {"images": most, "pixels": 1, "four": True},
        {"images": most, "pixels": 10**6},
        {"images": 3, "four": True},
        {"images": 1, "four": True},
        {"images": most, "bad": [0, 1, 2, 3, most // 2, most - 1], "four": True},
        {"images": 13, "bad": [1, 5, 9, 3, 7], "between": 1, "four": True},  # all of one process of four, and more
        {"images": 14, "protocol": "both", "scales": [256, 300], "four": True},
        {"images": 14, "workers": 1},
        {"images": 15, "between": 1000, "protocol": "centre", "four": True},
    ]
    return [{**plain[0], "four": True}, *plain[1:], *special]


@pytest.fixture(scope="module")
def places(battery, kinds):
    """Return {processes: places among the jobs}: all of them, but on four processes in the suite some."""
    everything = range(len(kinds))
    return {2: everything, 4: everything if battery else [at for at in everything if kinds[at].get("four")]}


def jobs(folder, runs, kinds):
    return [{**job, "runs": runs, "out": str(folder / str(number))} for number, job in enumerate(kinds)]


def failing_jobs(folder, runs, most):
    """Return jobs with too many bad images, a process that fails or has others, and posteriors that the first keeps."""
    base = {"runs": runs, "images": 13}
    special = [
        {**base, "bad": [1, 3, 5], "max_bad": 10},
        {**base, "fails": 1},
        {**base, "other": 1},
        {**base, "images": most, "cache": True},
        {**base, "images": most, "cache": True},
        {**base, "images": most, "cache": True, "protocol": "both"},
    ]
    return [{**job, "out": str(folder / f"failing {number}")} for number, job in enumerate(special)]


def together(python, processes, jobs, folder):
    """Run jobs on several processes; return what each process met in each job."""
    where = {"module": several_evaluations.__name__, "work": "run_all"}
    seconds = 200 + 10 * len(jobs)
    status, said, _ = several_processes.forked(python, processes, jobs, folder, seconds=seconds, **where)
    assert status == 0, said
    return [several_processes.runs_of(job, processes) for job in jobs]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return several_evaluations.save_runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def alone(tmp_path_factory, runs, kinds):
    folder = tmp_path_factory.mktemp("alone")
    return [several_evaluations.run(job) for job in jobs(folder, runs, kinds)]


@pytest.fixture(scope="module")
def met_by(python, tmp_path_factory, runs, most, kinds, places):
    """Return {processes: what they met}; two run the failing jobs as well."""
    two, four = (tmp_path_factory.mktemp(name) for name in ("two", "four"))
    of_four = [kinds[at] for at in places[4]]
    return {
        2: together(python, 2, [*jobs(two, runs, kinds), *failing_jobs(two, runs, most)], two),
        4: together(python, 4, jobs(four, runs, of_four), four),
    }


@pytest.mark.parametrize("processes", [2, 4])
def test_the_integers_are_those_of_one_process(kinds, places, alone, met_by, processes, figure):
    its_jobs, expectations = ([of[at] for at in places[processes]] for of in (kinds, alone))
    found = met_by[processes][: len(its_jobs)]
    greatest = 0.0
    for job, expected, met in zip(its_jobs, expectations, found, strict=True):
        n = job["images"] - len(job.get("bad", ()))
        assert expected["figures"]["n"] == n
        for one in met:
            assert {key: one["figures"][key] for key in INTEGERS} == {key: expected["figures"][key] for key in INTEGERS}
            assert [run["top1_wrong"] for run in one["figures"]["per_run"]] == [
                run["top1_wrong"] for run in expected["figures"]["per_run"]
            ]
        greatest = max(greatest, np.abs(np.subtract(met[0]["posteriors"], expected["posteriors"])).max())
        assert greatest < 1e-6
        scales = len(job.get("scales", [256]))
        if not job.get("workers"):
            asked = [index for one in met for index in one["asked"]]
            assert sorted(asked) == sorted(scales * list(range(job["images"])))
            for rank, one in enumerate(met):
                assert one["asked"] == sorted(scales * list(range(rank, job["images"], processes)))
    wrong = [met["figures"]["per_run"][0]["top1_wrong"] for met in alone]
    assert 0 < sum(wrong) < sum(met["figures"]["n"] for met in alone)
    same = f"{processes} processes, {len(its_jobs)} evaluations: the integers of one, posteriors within {greatest:.0e}"
    figure(20, "exact evaluation", same)


def test_errors_end_all_processes_and_what_is_kept_is_shared(met_by, most):
    bad, failed, other, first, again, more = met_by[2][-6:]
    assert {one["error"] for one in bad} == {"TooManyBadImagesError"}
    assert bad[0]["message"] == bad[1]["message"]
    assert (failed[1]["error"], failed[1]["message"]) == ("ValueError", "something is wrong here")
    assert (failed[0]["error"], failed[0]["message"]) == ("LostProcessError", "process 1 failed")
    assert {one["message"].partition(" than")[0] for one in other} == {
        "process 1 has other images, classes or runs under these names"
    }
    assert [met[0]["figures"]["from_cache"] for met in (first, again, more)] == [0, 1, 0.5]
    assert again[0]["asked"] == list(range(most))  # read for their digest, by the first process alone
    assert again[1]["asked"] == []
    assert again[0]["posteriors"] == first[0]["posteriors"]
