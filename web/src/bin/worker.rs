//! The worker: owns the model and the GPU, answers the page's requests.

#[cfg(target_arch = "wasm32")]
fn main() {
    qloom_web::worker::start();
}

#[cfg(not(target_arch = "wasm32"))]
fn main() {
    eprintln!("the worker runs in a browser: build it with web/build");
}
