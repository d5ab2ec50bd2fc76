"""This file names the options that a plan's meaning depends on: a run keeps them whole, and nothing later changes them."""

PLAN_SHAPE = ("survey", "tags", "tags_mode", "empty_token")
