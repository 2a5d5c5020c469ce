"""What the folders of runs and studies say, as one page and as a model card."""
