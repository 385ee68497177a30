"""One function for each verb, and `load`: the only place that seeds, picks a device, makes runs."""

from clozeworks.api.convert import ConvertRecipe, convert
from clozeworks.api.corpus import PrepareRecipe, TokenizerRecipe, prepare, tokenizer
from clozeworks.api.evaluate import EvaluateRecipe, evaluate
from clozeworks.api.extend import ExtendRecipe, extend
from clozeworks.api.finetune import FinetuneRecipe, finetune
from clozeworks.api.look import DoctorRecipe, InfoRecipe, doctor, info, listing
from clozeworks.api.model import load
from clozeworks.api.plan import PlanRecipe, plan
from clozeworks.api.predict import PredictRecipe, predict
from clozeworks.api.pretrain import PretrainRecipe, PretrainSettings, pretrain
from clozeworks.data.prepare import PrepareSettings
from clozeworks.text.train import TokenizerSettings
from clozeworks.train.loop import TrainSettings

__all__ = [
    "ConvertRecipe",
    "DoctorRecipe",
    "EvaluateRecipe",
    "ExtendRecipe",
    "FinetuneRecipe",
    "InfoRecipe",
    "PlanRecipe",
    "PredictRecipe",
    "PrepareRecipe",
    "PrepareSettings",
    "PretrainRecipe",
    "PretrainSettings",
    "TokenizerRecipe",
    "TokenizerSettings",
    "TrainSettings",
    "convert",
    "doctor",
    "evaluate",
    "extend",
    "finetune",
    "info",
    "listing",
    "load",
    "plan",
    "predict",
    "prepare",
    "pretrain",
    "tokenizer",
]
