"""Networks in files of other formats, there and back: ONNX, OpenVINO, ncnn, torch.export."""
