"""How each task's predictions are judged and shown: one file each, named after the task."""

from clozeworks.core.registry import Registry
from clozeworks.evaluation.reports.base import Report

REPORTS: Registry[type[Report]] = Registry("report", "clozeworks.evaluation.reports")
