// Writes parts.pt: a small state.pt, made by LibTorch alone, whose module holds views that are not contiguous, tied
// tensors and a name that is escaped. Built and run once by hand with LibTorch 1.13.1:
//   g++ -std=c++20 make_parts.cpp -o make_parts -I<root>/include -I<root>/include/torch/csrc/api/include
//       -L<root>/lib -ltorch -ltorch_cpu -lc10
//   ./make_parts parts.pt
#include <torch/torch.h>

#include <string>

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  torch::serialize::OutputArchive file, head, model, layer, optimizer;
  head.write("version", c10::IValue(int64_t{1}));
  head.write("description", c10::IValue(std::string(
      R"({"best_metric":null,"epoch":3,"iteration":200,"metadata":{},"metrics":{"loss":"NaN"},)"
      R"("parts":{"model":{"kind":"module"},"optimizer":{"kind":"optimizer","type":"SGD"}}})")));
  file.write("ckpt", head);

  const torch::Tensor base = torch::arange(1, 7, torch::kFloat32).reshape({2, 3});
  model.write("base", base);
  model.write("expanded", torch::tensor({7.0f}).expand({3}), true);
  model.write("stepped", base.slice(1, 0, 3, 2), true);
  model.write("tied", base);
  model.write("transposed", base.t(), true);
  layer.write("%69n", torch::zeros({4}));
  model.write("layer", layer);
  file.write("model", model);

  optimizer.write("description", c10::IValue(std::string(
      R"({"groups":[{"options":{"lr":0.1,"momentum":0.9},"parameters":["model/base"]}],"state":{},"type":"SGD"})")));
  file.write("optimizer", optimizer);
  file.save_to(argv[1]);
}
