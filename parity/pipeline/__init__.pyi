from .run import check_pipeline as check_pipeline
