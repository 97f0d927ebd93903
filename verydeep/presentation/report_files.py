"""Names of the files in the folder of a report: the page, its figures and its pictures."""

EVALUATION = ("evaluation.html", "evaluation.json", "wrong_images.jpg")
LOCALISATION = ("localisation.html", "localisation.json")
TRANSFER = ("transfer.html", "transfer.json")
