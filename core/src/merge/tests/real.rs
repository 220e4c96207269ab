//! Two real adapters for TinyLlama-1.1B-Chat, merged by every method, against a restatement of PEFT's rules that shares no
//! code with the product: plain loops in `f64`, sorting instead of selection, power iteration instead of a decomposition.
