"""What a trained model is worth, each figure beside what can be had without it. trainer/evaluate.py is the edge."""
