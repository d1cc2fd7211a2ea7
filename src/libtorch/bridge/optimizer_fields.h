// The fields of LibTorch's six optimizers, each list used for reading and for writing: f(name, reference) for each.
#pragma once

#include <torch/optim.h>

namespace ckpt::bridge {

template <class F>
void visit(torch::optim::SGDOptions& o, F&& f) {
  f("lr", o.lr());
  f("momentum", o.momentum());
  f("dampening", o.dampening());
  f("weight_decay", o.weight_decay());
  f("nesterov", o.nesterov());
}
template <class F>
void visit(torch::optim::SGDParamState& s, F&& f) {
  f("momentum_buffer", s.momentum_buffer());
}

template <class Options, class F>
void visit_adam_options(Options& o, F&& f) {
  f("lr", o.lr());
  f("betas", o.betas());
  f("eps", o.eps());
  f("weight_decay", o.weight_decay());
  f("amsgrad", o.amsgrad());
}
template <class State, class F>
void visit_adam_state(State& s, F&& f) {
  f("step", s.step());
  f("exp_avg", s.exp_avg());
  f("exp_avg_sq", s.exp_avg_sq());
  f("max_exp_avg_sq", s.max_exp_avg_sq());
}
template <class F>
void visit(torch::optim::AdamOptions& o, F&& f) {
  visit_adam_options(o, f);
}
template <class F>
void visit(torch::optim::AdamParamState& s, F&& f) {
  visit_adam_state(s, f);
}
template <class F>
void visit(torch::optim::AdamWOptions& o, F&& f) {
  visit_adam_options(o, f);
}
template <class F>
void visit(torch::optim::AdamWParamState& s, F&& f) {
  visit_adam_state(s, f);
}

template <class F>
void visit(torch::optim::RMSpropOptions& o, F&& f) {
  f("lr", o.lr());
  f("alpha", o.alpha());
  f("eps", o.eps());
  f("weight_decay", o.weight_decay());
  f("momentum", o.momentum());
  f("centered", o.centered());
}
template <class F>
void visit(torch::optim::RMSpropParamState& s, F&& f) {
  f("step", s.step());
  f("square_avg", s.square_avg());
  f("momentum_buffer", s.momentum_buffer());
  f("grad_avg", s.grad_avg());
}

template <class F>
void visit(torch::optim::AdagradOptions& o, F&& f) {
  f("lr", o.lr());
  f("lr_decay", o.lr_decay());
  f("weight_decay", o.weight_decay());
  f("initial_accumulator_value", o.initial_accumulator_value());
  f("eps", o.eps());
}
template <class F>
void visit(torch::optim::AdagradParamState& s, F&& f) {
  f("step", s.step());
  f("sum", s.sum());
}

template <class F>
void visit(torch::optim::LBFGSOptions& o, F&& f) {
  f("lr", o.lr());
  f("max_iter", o.max_iter());
  f("max_eval", o.max_eval());
  f("tolerance_grad", o.tolerance_grad());
  f("tolerance_change", o.tolerance_change());
  f("history_size", o.history_size());
  f("line_search_fn", o.line_search_fn());
}
template <class F>
void visit(torch::optim::LBFGSParamState& s, F&& f) {
  f("func_evals", s.func_evals());
  f("n_iter", s.n_iter());
  f("t", s.t());
  f("prev_loss", s.prev_loss());
  f("d", s.d());
  f("H_diag", s.H_diag());
  f("prev_flat_grad", s.prev_flat_grad());
  f("old_dirs", s.old_dirs());
  f("old_stps", s.old_stps());
  f("ro", s.ro());
  f("al", s.al());
}

/// Calls f.template operator()<Options, State>(name) for the optimizer's exact type; false where it is none of the six.
/// A class derived from one may hold more than is known here.
template <class F>
bool with_type(const torch::optim::Optimizer& optimizer, F&& f) {
  const std::type_info& type = typeid(optimizer);
  if (type == typeid(torch::optim::SGD)) {
    f.template operator()<torch::optim::SGDOptions, torch::optim::SGDParamState>("SGD");
  } else if (type == typeid(torch::optim::Adam)) {
    f.template operator()<torch::optim::AdamOptions, torch::optim::AdamParamState>("Adam");
  } else if (type == typeid(torch::optim::AdamW)) {
    f.template operator()<torch::optim::AdamWOptions, torch::optim::AdamWParamState>("AdamW");
  } else if (type == typeid(torch::optim::RMSprop)) {
    f.template operator()<torch::optim::RMSpropOptions, torch::optim::RMSpropParamState>("RMSprop");
  } else if (type == typeid(torch::optim::Adagrad)) {
    f.template operator()<torch::optim::AdagradOptions, torch::optim::AdagradParamState>("Adagrad");
  } else if (type == typeid(torch::optim::LBFGS)) {
    f.template operator()<torch::optim::LBFGSOptions, torch::optim::LBFGSParamState>("LBFGS");
  } else {
    return false;
  }
  return true;
}

}  // namespace ckpt::bridge
