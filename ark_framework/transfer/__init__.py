"""What a pretrained model is for: embed, probe, fine-tune, evaluate, compare."""
