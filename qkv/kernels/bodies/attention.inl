// Flash attention: placeholder bodies.
template <typename T> void attention_forward(const AttentionSpec&, const AttentionSequence<T>&, int, int64_t, int64_t, void*) {}
template <typename T> void attention_backward_delta(const AttentionSpec&, const AttentionSequence<T>&, const AttentionGradients<T>&, int) {}
template <typename T> void attention_backward_q(const AttentionSpec&, const AttentionSequence<T>&, const AttentionGradients<T>&, int, int64_t, int64_t, void*) {}
template <typename T> void attention_backward_kv(const AttentionSpec&, const AttentionSequence<T>&, const AttentionGradients<T>&, int, int64_t, int64_t, void*) {}
template <typename T> void attention_backward(const AttentionSpec&, const AttentionSequence<T>&, const AttentionGradients<T>&, int, void*) {}
template <typename T> size_t attention_scratch_bytes(const AttentionSpec&, int64_t, int64_t) { return 0; }
