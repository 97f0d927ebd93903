"""Names of the files in the folder of an experiment."""

PLAN, RESULTS, OUTCOMES = "plan.json", "results.json", "outcomes.npz"
HTML, MARKDOWN = "report.html", "report.md"
RUNS, EVALUATIONS, STUDIES = "runs", "evaluations", "studies"
"""Folders of trainings, of tests, and of the pages of studies."""
