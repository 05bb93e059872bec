"""What arguments of Jina Finetuner's `fit` are here, of those that are no settings under the same name."""

HINTS = {
    "csv_options": "what a CSV file holds is seen by its header; what may be in it is in docs/data.md",
    "device": "use devices",
    "freeze": "use lock_image or lock_text to leave a tower as it is, or train_last_blocks to train the end of each",
    "num_workers": "leave it out: pictures are decoded once, before training, and the next batch is read ahead",
    "public": "leave it out: an artifact is on your service alone, and save_artifact copies it",
    "to_onnx": "leave it out: the artifact is PyTorch's and open_clip's, and torch.onnx.export makes ONNX of what opens it",
    "description": "it is an argument of fit, and --description on the command line",
    "experiment_name": "it is an argument of fit, and --experiment on the command line",
    "name": "a run's name is run_name in Python, and --name on the command line",
    "run_name": "it is an argument of fit, and --name on the command line",
}
"""By name, what to do instead. `name` is none of its arguments, but the command line's for `run_name`."""
