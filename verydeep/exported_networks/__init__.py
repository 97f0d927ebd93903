"""Networks in files of other formats, there and back: ONNX, OpenVINO, torch.export."""
