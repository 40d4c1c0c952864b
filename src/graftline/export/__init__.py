"""ONNX export with preprocessing in the graph, quantisation, parity, latency, the edge bundle."""
