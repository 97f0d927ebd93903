"""Names of the files in the folder of an experiment."""

PLAN, RESULTS, OUTCOMES = "plan.json", "results.json", "outcomes.npz"
HTML, MARKDOWN = "report.html", "report.md"
