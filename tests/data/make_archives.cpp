// Writes the archives under tests/data/archives: what torch::serialize and torch::save of one LibTorch make of a few
// small objects. Built and run once by hand with each LibTorch:
//   g++ -std=c++20 make_archives.cpp -o make_archives -I<root>/include -I<root>/include/torch/csrc/api/include
//       -L<root>/lib -ltorch -ltorch_cpu -lc10
//   ./make_archives <folder> <suffix>            (the suffix is the version: 1.13.1, 2.13.0)
#include <torch/torch.h>

#include <fstream>
#include <string>

namespace {

std::string folder;
std::string suffix;

std::string path_of(const std::string& stem) { return folder + "/" + stem + "-" + suffix + ".pt"; }

torch::Tensor counted(torch::IntArrayRef shape, torch::Dtype dtype) {
  int64_t count = 1;
  for (int64_t size : shape) count *= size;
  return torch::arange(1, count + 1, torch::kInt64).reshape(shape).to(dtype);
}

void save_tensors() {
  torch::serialize::OutputArchive archive;
  for (auto [name, dtype] : std::vector<std::pair<std::string, torch::Dtype>>{{"uint8", torch::kUInt8},
                                                                              {"int8", torch::kInt8},
                                                                              {"int16", torch::kInt16},
                                                                              {"int32", torch::kInt32},
                                                                              {"int64", torch::kInt64},
                                                                              {"float16", torch::kFloat16},
                                                                              {"bfloat16", torch::kBFloat16},
                                                                              {"float32", torch::kFloat32},
                                                                              {"float64", torch::kFloat64},
                                                                              {"complex64", torch::kComplexFloat},
                                                                              {"complex128", torch::kComplexDouble}}) {
    archive.write(name, counted({2, 3}, dtype), /*is_buffer=*/name != "float32");
  }
  archive.write("bool", torch::tensor({true, false, true}), true);
  archive.write("scalar", torch::tensor(2.5), true);
  archive.write("empty", torch::zeros({0, 4}), true);
  torch::Tensor base = counted({4, 6}, torch::kFloat32);
  archive.write("base", base, true);
  archive.write("tied", base, true);
  archive.write("row", base[2], true);
  archive.write("transposed", base.t(), true);
  archive.write("stepped", base.slice(1, 1, 6, 2), true);
  archive.write("expanded", torch::tensor({7.0f}).expand({3}), true);
  archive.save_to(path_of("tensors"));
}

void save_values() {
  torch::serialize::OutputArchive archive;
  archive.write("int", c10::IValue(int64_t{-5}));
  archive.write("big", c10::IValue(int64_t{-9000000000000000000}));
  archive.write("double", c10::IValue(0.1));
  archive.write("infinity", c10::IValue(std::numeric_limits<double>::infinity()));
  archive.write("true", c10::IValue(true));
  archive.write("false", c10::IValue(false));
  archive.write("none", c10::IValue());
  archive.write("text", c10::IValue(std::string("a \"quoted\" text\nwith \xc3\xa9")));
  archive.write("long_text", c10::IValue(std::string(300, 'x')));
  archive.write("no_text", c10::IValue(std::string()));
  archive.write("ints", c10::IValue(std::vector<int64_t>{1, -2, 300, 70000, int64_t{1} << 40}));
  archive.write("no_ints", c10::IValue(std::vector<int64_t>{}));
  archive.write("doubles", c10::IValue(std::vector<double>{0.5, -1e300}));
  archive.write("tensors", c10::IValue(std::vector<torch::Tensor>{counted({2}, torch::kFloat32), torch::tensor(1)}));
  torch::serialize::OutputArchive inner, innermost, hollow;
  innermost.write("w", counted({3}, torch::kFloat64));
  inner.write("deep", innermost);
  inner.write("n", c10::IValue(int64_t{1}));
  archive.write("inner", inner);
  archive.write("hollow", hollow);
  archive.save_to(path_of("values"));
}

void save_names() {
  torch::serialize::OutputArchive archive, nested;
  for (const char* name :
       {"with.dot", "with blank", "with/slash", "it's", "1", "\xc3\xa9\xe6\xbc\xa2", "", "per%25cent"}) {
    archive.write(name, torch::tensor(1.0f), true);
  }
  nested.write("w", torch::tensor(2.0f));
  archive.write("nested.with dot", nested);
  archive.save_to(path_of("names"));
}

struct NetImpl : torch::nn::Module {
  NetImpl() {
    conv = register_module("conv", torch::nn::Conv2d(torch::nn::Conv2dOptions(1, 2, 3)));
    norm = register_module("norm", torch::nn::BatchNorm2d(2));
    tail = register_module("tail",
                           torch::nn::Sequential(torch::nn::Linear(8, 4), torch::nn::ReLU(), torch::nn::Linear(4, 3)));
    scale = register_parameter("scale", torch::ones({1}));
  }
  torch::nn::Conv2d conv{nullptr};
  torch::nn::BatchNorm2d norm{nullptr};
  torch::nn::Sequential tail{nullptr};
  torch::Tensor scale;
};
TORCH_MODULE(Net);

template <class Optimizer, class Options>
void save_optimizer(const std::string& stem, const Options& options) {
  torch::manual_seed(1);
  torch::nn::Linear layer(3, 2);
  Optimizer optimizer(layer->parameters(), options);
  for (int step = 0; step < 2; ++step) {
    optimizer.step([&] {
      optimizer.zero_grad();
      torch::Tensor loss = layer->forward(torch::ones({4, 3})).square().sum();
      loss.backward();
      return loss;
    });
  }
  torch::save(optimizer, path_of(stem));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  folder = argv[1];
  suffix = argv[2];
  save_tensors();
  save_values();
  save_names();
  torch::manual_seed(1);
  torch::save(Net(), path_of("model"));
  torch::save(std::vector<torch::Tensor>{counted({2, 2}, torch::kFloat32), torch::tensor(3)}, path_of("tensor_list"));
  torch::save(counted({2}, torch::kInt32), path_of("tensor"));
  save_optimizer<torch::optim::SGD>("sgd", torch::optim::SGDOptions(0.1).momentum(0.9));
  save_optimizer<torch::optim::Adam>("adam", torch::optim::AdamOptions(0.1).amsgrad(true));
  save_optimizer<torch::optim::LBFGS>("lbfgs", torch::optim::LBFGSOptions(0.1).max_iter(5).history_size(2));
  return 0;
}
